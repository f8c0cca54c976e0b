"""Packed distributions as a frame: what a node of a tree sends to its parent and its children.

Log-probabilities travel in fp16, which holds everything down to log 0's stand-in; token ids as
little-endian integers of as few bytes as the vocabulary needs. Equal content, equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedcore.distill.packed import FLOOR, Packed
from fedcore.errors import WireError
from fedcore.plan.frame_header import read_header
from fedcore.wire.frame import FrameInfo, FrameReader, write_frame

KIND = "bridge-logits"
HALF_BYTES = 2


@dataclass(frozen=True)
class Expected:
    """What a node that reads a frame knows of it: the shared bridge and the job's options."""

    bridge: str
    rows: int
    kept: int
    vocabulary: int
    temperature: float


def place_bytes(vocabulary: int) -> int:
    """Bytes of one token id."""
    return max(1, ((vocabulary - 1).bit_length() + 7) // 8)


def payload_bytes(rows: int, kept: int, vocabulary: int) -> int:
    """Bytes of a frame's numbers, its header not counted: k ids and values a row, one remainder."""
    return rows * (kept * (HALF_BYTES + place_bytes(vocabulary)) + HALF_BYTES)


def write_packed(path: Path | str, told: Packed, bridge: str) -> FrameInfo:
    """Write what a model says on the bridge samples whose digest is ``bridge``."""
    width = place_bytes(told.vocabulary)
    shifts = 8 * torch.arange(width)
    tensors = {
        "values": told.values.to("cpu", torch.float16),
        "rest": told.rest.to("cpu", torch.float16),
        "places": ((told.places.cpu().unsqueeze(-1) >> shifts) & 0xFF).to(torch.uint8),
    }
    meta = {
        "kind": KIND,
        "bridge": bridge,
        "vocabulary": str(told.vocabulary),
        "temperature": repr(told.temperature),
    }
    return write_frame(path, tensors, meta)


def read_packed(path: Path | str, like: Expected) -> Packed:
    """Read a frame; each row's mass is made 1 again, which rounding to fp16 had moved.

    Raises WireError for another bridge, vocabulary, temperature, number of rows or tokens, ids that
    are no tokens or come twice, and numbers that are no log-probabilities.
    """
    _check(Path(path), like)
    frame = FrameReader(path)
    values, rest = frame["values"].float(), frame["rest"].float()
    shifts = 8 * torch.arange(place_bytes(like.vocabulary))
    places = (frame["places"].long() << shifts).sum(-1)
    if bool((places >= like.vocabulary).any()) or bool((places.diff(dim=1) <= 0).any()):
        raise WireError("a row names a token twice or one that does not exist")
    both = torch.cat((values, rest.unsqueeze(1)), 1)
    if not bool((torch.isfinite(both) & (both <= 0)).all()):
        raise WireError("the frame holds numbers that are no log-probabilities")
    mass = both.logsumexp(1)
    if bool((mass.abs() > 0.1).any()):
        raise WireError("a row's probabilities do not add up to 1")
    return Packed(
        _scaled(values, mass.unsqueeze(1)),
        places,
        _scaled(rest, mass),
        like.vocabulary,
        like.temperature,
    )


def _check(path: Path, like: Expected) -> None:
    header = read_header(path)
    wanted = {
        "kind": KIND,
        "bridge": like.bridge,
        "vocabulary": str(like.vocabulary),
        "temperature": repr(like.temperature),
    }
    for key, value in wanted.items():
        if header.meta.get(key) != value:
            found = header.meta.get(key)
            raise WireError(f"{path.name} says {key}={found!r} where {value!r} is due")
    rows, kept = like.rows, like.kept
    layout = {
        "values": ("F16", (rows, kept)),
        "rest": ("F16", (rows,)),
        "places": ("U8", (rows, kept, place_bytes(like.vocabulary))),
    }
    if {name: (item.dtype, item.shape) for name, item in header.tensors.items()} != layout:
        raise WireError(f"{path.name} does not hold {kept} tokens of each of {rows} distributions")


def _scaled(values: Tensor, mass: Tensor) -> Tensor:
    return (values - mass).clamp(FLOOR, 0.0)

"""PackedLogits logits as a frame: what a node of a tree sends to its parent and its children.

Log-probabilities travel in fp16, which holds everything down to log 0's stand-in; token ids as
little-endian integers of as few bytes as the vocabulary needs. Equal content, equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fedcore.errors import WireError
from fedcore.formats.frame_header import read_header
from fedcore.formats.logits_header import (
    KIND,
    ExpectedLogits,
    check_packed_header,
    payload_bytes,
    place_bytes,
)
from fedcore.methods.distillation.packed_logits import FLOOR, PackedLogits
from fedcore.wire.frame import FrameInfo, FrameReader, write_frame

__all__ = ["ExpectedLogits", "payload_bytes", "place_bytes", "read_packed", "write_packed"]


def write_packed(
    path: Path | str, told: PackedLogits, bridge: str, more: Mapping[str, str] | None = None
) -> FrameInfo:
    """Write what a model says on the bridge samples whose digest is ``bridge``.

    ``more``: what else the frame is to say of itself, such as whose it is.
    """
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
    return write_frame(path, tensors, {**(more or {}), **meta})


def read_packed(path: Path | str, like: ExpectedLogits) -> PackedLogits:
    """Read a frame; each row's mass is made 1 again, which rounding to fp16 had moved.

    Raises WireError for another bridge, vocabulary, temperature, number of rows or tokens, ids that
    are no tokens or come twice, and numbers that are no log-probabilities.
    """
    check_packed_header(read_header(path), like)
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
    return PackedLogits(
        _scaled(values, mass.unsqueeze(1)),
        places,
        _scaled(rest, mass),
        like.vocabulary,
        like.temperature,
    )


def _scaled(values: Tensor, mass: Tensor) -> Tensor:
    return (values - mass).clamp(FLOOR, 0.0)

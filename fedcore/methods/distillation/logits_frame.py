"""Packed logits as a frame, sent by a node of a tree to its parent and its children.

Log-probabilities travel in fp16, whose range includes FLOOR, the stand-in for log 0. Token ids
travel as little-endian integers of as few bytes as the vocabulary needs. Equal content gives equal
bytes.
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
    place_bytes,
)
from fedcore.methods.distillation.packed_logits import FLOOR, PackedLogits
from fedcore.wire.frame import FrameInfo, FrameReader, write_frame


def write_packed(
    path: Path | str,
    logits: PackedLogits,
    bridge: str,
    extra_meta: Mapping[str, str] | None = None,
) -> FrameInfo:
    """Write a model's logits on the bridge whose digest is ``bridge``.

    ``extra_meta``: further metadata of the frame, such as its device.
    """
    width = place_bytes(logits.vocabulary)
    shifts = 8 * torch.arange(width)
    tensors = {
        "values": logits.values.to("cpu", torch.float16),
        "rest": logits.rest.to("cpu", torch.float16),
        "places": ((logits.places.cpu().unsqueeze(-1) >> shifts) & 0xFF).to(torch.uint8),
    }
    meta = {
        "kind": KIND,
        "bridge": bridge,
        "vocabulary": str(logits.vocabulary),
        "temperature": repr(logits.temperature),
    }
    return write_frame(path, tensors, {**(extra_meta or {}), **meta})


def read_packed(path: Path | str, expected: ExpectedLogits) -> PackedLogits:
    """Read a frame and renormalise each row, whose mass rounding to fp16 has changed.

    Raises WireError if the bridge, vocabulary, temperature, number of rows or number of tokens
    differ, if token ids repeat or do not exist, and if values are not log-probabilities.
    """
    check_packed_header(read_header(path), expected)
    frame = FrameReader(path)
    values, rest = frame["values"].float(), frame["rest"].float()
    shifts = 8 * torch.arange(place_bytes(expected.vocabulary))
    places = (frame["places"].long() << shifts).sum(-1)
    if bool((places >= expected.vocabulary).any()) or bool((places.diff(dim=1) <= 0).any()):
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
        expected.vocabulary,
        expected.temperature,
    )


def _scaled(values: Tensor, mass: Tensor) -> Tensor:
    return (values - mass).clamp(FLOOR, 0.0)

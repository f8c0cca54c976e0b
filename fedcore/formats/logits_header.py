"""Check the header of a frame of packed teacher logits, with the standard library alone.

A node of an agglomerative job sends the frame for its bridge samples
(``fedcore.methods.agglomerative``). ``values`` (rows, k): log-probabilities in fp16; ``rest``
(rows): the remainder in fp16; ``places`` (rows, k, bytes): token ids as little-endian integers of
as few bytes as the vocabulary needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedcore.errors import WireError
from fedcore.formats.frame_header import FrameHeader

KIND = "bridge-logits"
BRIDGE_KIND = "bridge"  # identifies the bridge that a job's nodes share, before any logits
MODEL_KIND = "model"  # a parent's weights, sent in the last round
BRIDGE_KEYS = ("bridge", "vocabulary", "temperature")
HALF_BYTES = 2


@dataclass(frozen=True)
class ExpectedLogits:
    """What a frame must contain, by the shared bridge and the job's options.

    ``bridge``: digest of its tokens; ``rows``: number of its target tokens; ``top_k``: tokens sent
    per distribution.
    """

    bridge: str
    rows: int
    top_k: int
    vocabulary: int
    temperature: float

    @property
    def meta(self) -> dict[str, str]:
        """A frame's metadata about its bridge."""
        values = self.bridge, str(self.vocabulary), repr(self.temperature)
        return dict(zip(BRIDGE_KEYS, values, strict=True))

    @property
    def layout(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Each tensor's dtype and shape."""
        return {
            "values": ("F16", (self.rows, self.top_k)),
            "rest": ("F16", (self.rows,)),
            "places": ("U8", (self.rows, self.top_k, place_bytes(self.vocabulary))),
        }

    @property
    def payload_bytes(self) -> int:
        return payload_bytes(self.rows, self.top_k, self.vocabulary)


def place_bytes(vocabulary: int) -> int:
    """Bytes of one token id."""
    return max(1, ((vocabulary - 1).bit_length() + 7) // 8)


def payload_bytes(rows: int, top_k: int, vocabulary: int) -> int:
    """Bytes of a frame without its header: k ids and values per row, and one remainder."""
    return rows * (top_k * (HALF_BYTES + place_bytes(vocabulary)) + HALF_BYTES)


def check_packed_header(header: FrameHeader, like: ExpectedLogits) -> None:
    """Raise WireError for another kind, bridge, vocabulary, temperature, or number of tokens."""
    check_meta(header, {"kind": KIND, **like.meta})
    if {name: (item.dtype, item.shape) for name, item in header.tensors.items()} != like.layout:
        raise WireError(
            f"the frame does not hold {like.top_k} tokens of each of {like.rows} distributions"
        )


def check_meta(header: FrameHeader, due: Mapping[str, Any]) -> None:
    """Raise WireError if a frame's metadata differs from what is due."""
    for key, value in due.items():
        if (actual := header.meta.get(key)) != value:
            raise WireError(f"the frame has {key}={actual!r} where {value!r} is due")

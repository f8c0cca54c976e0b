"""Whether the header of a frame of packed logits is right: stdlib alone, no number is read.

Such a frame is what a node of a tree of models says on the bridge samples
(``fedcore.methods.agglomerative``): ``values`` (rows, k) log-probabilities and ``rest`` (rows) in
fp16, ``places`` (rows, k, bytes) token ids as little-endian integers of as few bytes as the
vocabulary needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedcore.errors import WireError
from fedcore.formats.frame_header import FrameHeader

KIND = "bridge-logits"
BRIDGE_KIND = "bridge"  # says which bridge a job's nodes share, before anybody has said anything
MODEL_KIND = "model"  # of the frame in which a parent sends its weights, in the last round
BRIDGE_KEYS = ("bridge", "vocabulary", "temperature")
HALF_BYTES = 2


@dataclass(frozen=True)
class ExpectedLogits:
    """What a reader of a frame knows of it: the shared bridge and the job's options.

    ``bridge`` is the digest of its tokens, ``rows`` how many target tokens it has.
    """

    bridge: str
    rows: int
    kept: int
    vocabulary: int
    temperature: float

    @property
    def meta(self) -> dict[str, str]:
        """What a frame says of its bridge."""
        said = self.bridge, str(self.vocabulary), repr(self.temperature)
        return dict(zip(BRIDGE_KEYS, said, strict=True))

    @property
    def layout(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Each tensor's dtype and shape."""
        return {
            "values": ("F16", (self.rows, self.kept)),
            "rest": ("F16", (self.rows,)),
            "places": ("U8", (self.rows, self.kept, place_bytes(self.vocabulary))),
        }

    @property
    def payload_bytes(self) -> int:
        return payload_bytes(self.rows, self.kept, self.vocabulary)


def place_bytes(vocabulary: int) -> int:
    """Bytes of one token id."""
    return max(1, ((vocabulary - 1).bit_length() + 7) // 8)


def payload_bytes(rows: int, kept: int, vocabulary: int) -> int:
    """Bytes of a frame's numbers, its header not counted: k ids and values a row, one remainder."""
    return rows * (kept * (HALF_BYTES + place_bytes(vocabulary)) + HALF_BYTES)


def check_packed_header(header: FrameHeader, like: ExpectedLogits) -> None:
    """Raise WireError for another kind, bridge, vocabulary, temperature, or number of tokens."""
    check_meta(header, {"kind": KIND, **like.meta})
    if {name: (item.dtype, item.shape) for name, item in header.tensors.items()} != like.layout:
        raise WireError(
            f"the frame does not hold {like.kept} tokens of each of {like.rows} distributions"
        )


def check_meta(header: FrameHeader, due: Mapping[str, Any]) -> None:
    """Raise WireError where a frame's metadata says something else than is due."""
    for key, value in due.items():
        if (found := header.meta.get(key)) != value:
            raise WireError(f"the frame says {key}={found!r} where {value!r} is due")

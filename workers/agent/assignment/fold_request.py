"""The cluster that a device folds: what the server says of it, and its updates on this disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcore.formats.wire_offer import sha256_of


@dataclass(frozen=True)
class ClusterUpdate:
    """An update to fold: its bytes, whose it is, and how much it weighs (examples)."""

    sha256: str
    size: int
    slot: int
    examples: int


@dataclass(frozen=True)
class FoldRequest:
    """Updates that a device folds into one. ``shapes`` are those of the tensors in each."""

    shapes: dict[str, tuple[int, ...]]
    parts: tuple[ClusterUpdate, ...]

    @classmethod
    def read(cls, values: Mapping[str, Any] | None) -> FoldRequest | None:
        """From the answer to an acceptance; None where the work is no fold."""
        if not values:
            return None
        shapes = {str(n): tuple(int(side) for side in s) for n, s in values["shapes"].items()}
        return cls(shapes, tuple(_part(item) for item in values["updates"]))

    @property
    def examples(self) -> int:
        return sum(part.examples for part in self.parts)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(part.sha256 for part in self.parts)

    def gather(self, fetch: Callable[[str, int], Path]) -> list[Path]:
        """Their files, in the order of the parts."""
        return [fetch(part.sha256, part.size) for part in self.parts]


def _part(values: Mapping[str, Any]) -> ClusterUpdate:
    sha256, size = sha256_of(values["sha256"]), int(values["size_bytes"])
    return ClusterUpdate(sha256, size, int(values["slot"]), int(values["examples"]))

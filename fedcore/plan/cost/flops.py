"""FLOPs as a polynomial of a sample's lengths, and model FLOPs utilisation (MFU).

MFU as defined by Woisetschlaeger et al., arXiv 2310.03150.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """FLOPs of a sample as a polynomial in its source length S and target length T."""

    s: int = 0
    t: int = 0
    ss: int = 0
    tt: int = 0
    st: int = 0

    def __add__(self, other: Cost) -> Cost:
        pairs = zip(self._parts, other._parts, strict=True)
        return Cost(*(first + second for first, second in pairs))

    def __mul__(self, factor: int) -> Cost:
        return Cost(*(part * factor for part in self._parts))

    @property
    def _parts(self) -> tuple[int, ...]:
        return (self.s, self.t, self.ss, self.tt, self.st)

    def of(self, lengths: Iterable[tuple[int, int]]) -> int:
        """FLOPs of samples given as (source tokens, target tokens), padding not counted."""
        total = 0
        for s, t in lengths:
            total += self.s * s + self.t * t + self.ss * s * s + self.tt * t * t + self.st * s * t
        return total


def mfu(flops: float, seconds: float, peak: float) -> float:
    """Needed FLOPs / (seconds x peak FLOP/s); 0 if the divisor is 0."""
    return flops / (seconds * peak) if seconds > 0 and peak > 0 else 0.0

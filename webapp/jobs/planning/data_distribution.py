"""How the examples a job would learn from are spread over its devices: sizes and domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SHOWN = 12  # devices


class DatasetFigures(Protocol):
    """What is asked of a device: figures of the dataset it would train on."""

    @property
    def name(self) -> str: ...
    @property
    def dataset(self) -> str: ...
    @property
    def domain(self) -> str: ...
    @property
    def examples(self) -> int: ...


@dataclass(frozen=True)
class Holding:
    """One device. ``share`` is of all examples, ``length`` of the largest device's (0 to 1)."""

    name: str
    words: str
    examples: int
    share: float
    length: float


@dataclass(frozen=True)
class Spread:
    """``domains``: name, examples and devices of each, the largest first; "" where none is told."""

    holdings: tuple[Holding, ...]
    domains: tuple[tuple[str, int, int], ...]
    total: int
    devices: int
    smallest: int

    @property
    def more(self) -> int:
        """Devices that are not shown."""
        return self.devices - len(self.holdings)

    @property
    def uneven(self) -> float:
        """How many times the smallest device's examples the largest holds."""
        return self.holdings[0].examples / max(1, self.smallest)


def spread_of(devices: Sequence[DatasetFigures]) -> Spread | None:
    """The largest devices first; None where there is no device."""
    if not devices:
        return None
    ordered = sorted(devices, key=lambda held: (-held.examples, held.name))
    total = sum(held.examples for held in ordered)
    return Spread(
        tuple(_holding(held, total, ordered[0].examples) for held in ordered[:SHOWN]),
        _domains(ordered),
        total,
        len(ordered),
        ordered[-1].examples,
    )


def _holding(held: DatasetFigures, total: int, largest: int) -> Holding:
    words = f"{held.dataset}, {held.domain}" if _apart(held) else held.dataset
    share, length = held.examples / max(1, total), held.examples / max(1, largest)
    return Holding(held.name, words, held.examples, share, length)


def _apart(held: DatasetFigures) -> bool:
    """Whether the domain says more than the dataset's name."""
    return bool(held.domain) and held.domain != held.dataset


def _domains(devices: Sequence[DatasetFigures]) -> tuple[tuple[str, int, int], ...]:
    sums: dict[str, tuple[int, int]] = {}
    for held in devices:
        examples, count = sums.get(held.domain, (0, 0))
        sums[held.domain] = examples + held.examples, count + 1
    found = ((name, examples, count) for name, (examples, count) in sums.items())
    return tuple(sorted(found, key=lambda row: (-row[1], row[0])))

"""Distribution of a job's training examples over devices and domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MAX_DEVICES = 12  # listed


class DatasetFigures(Protocol):
    """A device and the dataset it would train on."""

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
    """One device. ``share``: of all examples; ``length``: of the largest device's (0 to 1)."""

    name: str
    words: str
    examples: int
    share: float
    length: float


@dataclass(frozen=True)
class Spread:
    """``domains``: name, examples and devices, the largest first; "" for an unknown domain."""

    holdings: tuple[Holding, ...]
    domains: tuple[tuple[str, int, int], ...]
    total: int
    devices: int
    smallest: int

    @property
    def more(self) -> int:
        """Devices that are not listed."""
        return self.devices - len(self.holdings)

    @property
    def uneven(self) -> float:
        """Examples of the largest device over those of the smallest."""
        return self.holdings[0].examples / max(1, self.smallest)


def spread_of(devices: Sequence[DatasetFigures]) -> Spread | None:
    """The largest devices first; None without devices."""
    if not devices:
        return None
    ordered = sorted(devices, key=lambda device: (-device.examples, device.name))
    total = sum(device.examples for device in ordered)
    domains: dict[str, tuple[int, int]] = {}
    for device in ordered:
        examples, count = domains.get(device.domain, (0, 0))
        domains[device.domain] = examples + device.examples, count + 1
    rows = ((name, examples, count) for name, (examples, count) in domains.items())
    largest = ordered[0].examples
    holdings = []
    for device in ordered[:MAX_DEVICES]:
        has_domain = device.domain and device.domain != device.dataset
        text = f"{device.dataset}, {device.domain}" if has_domain else device.dataset
        share, length = device.examples / max(1, total), device.examples / max(1, largest)
        holdings.append(Holding(device.name, text, device.examples, share, length))
    return Spread(
        tuple(holdings),
        tuple(sorted(rows, key=lambda row: (-row[1], row[0]))),
        total,
        len(ordered),
        ordered[-1].examples,
    )

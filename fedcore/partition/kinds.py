"""Kinds of partition: each is a row of ``KINDS`` that assigns row numbers to devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fedcore.errors import DataError
from fedcore.seeds import derive

Parts = list[list[int]]
Deal = Callable[[str, Sequence[str], int, np.random.Generator], Parts]
ATTEMPTS = 100


@dataclass(frozen=True)
class Kind:
    """A kind of partition. ``argument``: name of what follows the colon, "" for nothing.

    ``deal`` takes the argument, one label per row, the number of devices and a generator.
    """

    deal: Deal
    argument: str = ""
    needs_labels: bool = False


def parse_partition(how: str) -> tuple[str, str]:
    """Split a text such as ``dirichlet:0.3`` into kind and argument. Raises DataError."""
    kind, _, argument = how.partition(":")
    if kind not in KINDS or bool(argument) != bool(KINDS[kind].argument):
        raise DataError(f"unknown partition {how!r}; give {SYNTAX}")
    if CHECKS.get(KINDS[kind].argument):
        CHECKS[KINDS[kind].argument](argument)
    return kind, argument


def partition(how: str, rows: int, devices: int, seed: int, labels: Sequence[str] = ()) -> Parts:
    """Each device's row numbers, ascending; every device has at least one.

    ``labels``, one per row: the column's values for ``column:NAME``, or the classes for
    ``dirichlet:ALPHA`` and ``pathological:K``. Raises DataError, which says what to change.
    """
    kind, argument = parse_partition(how)
    if devices < 1 or rows < devices:
        raise DataError(f"{rows} rows cannot be dealt out to {devices} devices; lower --devices")
    if KINDS[kind].needs_labels and not labels:
        raise DataError(f"{how} deals out by label; give --label-column, or take sizes:ALPHA")
    if labels and len(labels) != rows:
        raise DataError(f"{len(labels)} labels do not fit {rows} rows")
    rng = np.random.default_rng(derive(seed, "partition", how))
    texts = [str(label) for label in labels] or [""] * rows
    return [sorted(part) for part in KINDS[kind].deal(argument, texts, devices, rng)]


def _iid(argument: str, labels: Sequence[str], devices: int, rng: np.random.Generator) -> Parts:
    """Shuffle, then cut into parts whose sizes differ by at most one."""
    del argument
    order = rng.permutation(len(labels))
    return [part.tolist() for part in np.array_split(order, devices)]


def _dirichlet(
    argument: str, labels: Sequence[str], devices: int, rng: np.random.Generator
) -> Parts:
    """Share each class out by a draw from Dirichlet(alpha) (Hsu et al., arXiv 1909.06335).

    With a small alpha each class is on few devices. The draw is repeated while a device is empty.
    """
    alpha = _positive(argument)
    groups = _groups(labels)
    for _ in range(ATTEMPTS):
        parts: Parts = [[] for _ in range(devices)]
        for label in sorted(groups):
            shuffled = rng.permutation(groups[label])
            cuts = np.cumsum(rng.dirichlet([alpha] * devices))[:-1] * len(shuffled)
            for part, rows in zip(parts, np.split(shuffled, cuts.round().astype(int)), strict=True):
                part.extend(rows.tolist())
        if all(parts):
            return parts
    raise DataError(
        f"dirichlet:{argument} keeps leaving one of {devices} devices empty; raise alpha or "
        "lower --devices"
    )


def _sizes(argument: str, labels: Sequence[str], devices: int, rng: np.random.Generator) -> Parts:
    """Sizes drawn from Dirichlet(alpha), rows at random: different amounts of similar data.

    Our choice: each device gets one row before the rest is shared out, so none is empty.
    """
    shares = rng.dirichlet([_positive(argument)] * devices)
    cuts = (np.cumsum(shares)[:-1] * (len(labels) - devices)).round().astype(int)
    order = rng.permutation(len(labels))
    return [part.tolist() for part in np.split(order, cuts + np.arange(1, devices))]


def _column(argument: str, labels: Sequence[str], devices: int, rng: np.random.Generator) -> Parts:
    """Assign each value's rows to one device; the largest values first if there are more."""
    del rng
    groups = _groups(labels)
    if len(groups) < devices:
        raise DataError(
            f"column {argument} has {len(groups)} values, too few for {devices} devices; "
            "lower --devices"
        )
    parts: Parts = [[] for _ in range(devices)]
    for label in sorted(groups, key=lambda label: (-len(groups[label]), label)):
        min(parts, key=len).extend(groups[label])
    return parts


def _pathological(
    argument: str, labels: Sequence[str], devices: int, rng: np.random.Generator
) -> Parts:
    """K shards of the rows sorted by label per device (McMahan et al. 2017, section 3).

    Our choice: a shard has one label, and a device never two shards of a label, so it has exactly K
    labels. Shards of one label are of equal size, of different labels nearly so. A label's shards
    go to the devices that lack most, with ties drawn, which always works out (Gale and Ryser).
    """
    count, groups = _count(argument), _groups(labels)
    if count > len(groups):
        raise DataError(
            f"pathological:{argument} wants {count} labels on each device, but there are "
            f"{len(groups)}; lower K or take another label column"
        )
    shards = _shards(groups, count, devices)
    parts: Parts = [[] for _ in range(devices)]
    lacking = np.full(devices, count)
    for label in sorted(groups, key=lambda label: (-shards[label], label)):
        rows = np.array_split(rng.permutation(groups[label]), shards[label])
        chosen = np.lexsort((rng.random(devices), -lacking))[: shards[label]]
        for device, shard in zip(chosen, rows, strict=True):
            parts[device].extend(shard.tolist())
        lacking[chosen] -= 1
    return parts


def _shards(groups: dict[str, list[int]], count: int, devices: int) -> dict[str, int]:
    """Number of shards of each label: at least one, at most ``devices``, otherwise by size."""
    most = {label: min(devices, len(rows)) for label, rows in groups.items()}
    total = count * devices
    if total < len(groups):
        raise DataError(
            f"{devices} devices with {count} labels each cannot hold {len(groups)} labels; "
            "raise K or --devices"
        )
    if sum(most.values()) < total:
        raise DataError(
            f"too few rows of some labels for {count} labels on each of {devices} devices; "
            "lower K or --devices"
        )
    shards = dict.fromkeys(groups, 1)
    for _ in range(total - len(groups)):
        free = [label for label in groups if shards[label] < most[label]]
        shards[max(free, key=lambda label: (len(groups[label]) / shards[label], label))] += 1
    return shards


def _groups(labels: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each label."""
    groups: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        groups.setdefault(label, []).append(row)
    return groups


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise DataError(f"the Dirichlet alpha must be a number above 0, not {text!r}")
    return value


def _count(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise DataError(f"labels on each device must be a whole number above 0, not {text!r}")
    return value


CHECKS: dict[str, Callable[[str], object]] = {"ALPHA": _positive, "K": _count}
KINDS: dict[str, Kind] = {
    "iid": Kind(_iid),
    "dirichlet": Kind(_dirichlet, "ALPHA", needs_labels=True),
    "sizes": Kind(_sizes, "ALPHA"),
    "column": Kind(_column, "NAME", needs_labels=True),
    "pathological": Kind(_pathological, "K", needs_labels=True),
}
SYNTAX = ", ".join(f"{name}:{kind.argument}".rstrip(":") for name, kind in KINDS.items())

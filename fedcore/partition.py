"""Deal one dataset out to several devices, to study federations that differ more or less.

Every partition gives each row to exactly one device and depends on its seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fedcore.errors import DataError
from fedcore.seeds import derive

Parts = list[list[int]]
ATTEMPTS = 100


def parse(how: str) -> tuple[str, str]:
    """Split ``iid``, ``dirichlet:ALPHA`` or ``column:NAME`` into kind and argument."""
    kind, _, argument = how.partition(":")
    if kind not in KINDS or bool(argument) == (kind == "iid"):
        raise DataError(f"unknown partition {how!r}; give iid, dirichlet:ALPHA or column:NAME")
    return kind, argument


def partition(how: str, rows: int, devices: int, seed: int, labels: Sequence[str] = ()) -> Parts:
    """Return each device's row numbers, ascending; no device is left without a row.

    ``labels``, one per row, are the column's values for ``column:NAME`` and the classes for
    ``dirichlet:ALPHA`` (without them the Dirichlet draw decides sizes only).
    """
    kind, argument = parse(how)
    if devices < 1 or rows < devices:
        raise DataError(f"{rows} rows cannot be dealt out to {devices} devices; lower --devices")
    if labels and len(labels) != rows:
        raise DataError(f"{len(labels)} labels do not fit {rows} rows")
    rng = np.random.default_rng(derive(seed, "partition", how))
    parts = KINDS[kind](argument, [str(label) for label in labels] or [""] * rows, devices, rng)
    return [sorted(part) for part in parts]


def _iid(argument: str, labels: Sequence[str], devices: int, rng: np.random.Generator) -> Parts:
    """Shuffle, then cut into parts whose sizes differ by one at most."""
    del argument
    order = rng.permutation(len(labels))
    return [part.tolist() for part in np.array_split(order, devices)]


def _dirichlet(
    argument: str, labels: Sequence[str], devices: int, rng: np.random.Generator
) -> Parts:
    """Share each class out by a draw from Dirichlet(alpha) (Hsu et al., arXiv 1909.06335).

    Small alpha: each class sits on few devices. Drawn again while a device would stay empty.
    """
    alpha = _positive(argument)
    for _ in range(ATTEMPTS):
        parts: Parts = [[] for _ in range(devices)]
        for label in sorted(set(labels)):
            own = rng.permutation([row for row, found in enumerate(labels) if found == label])
            cuts = np.cumsum(rng.dirichlet([alpha] * devices))[:-1] * len(own)
            for part, rows in zip(parts, np.split(own, cuts.round().astype(int)), strict=True):
                part.extend(rows.tolist())
        if all(parts):
            return parts
    raise DataError(
        f"dirichlet:{argument} keeps leaving one of {devices} devices empty; raise alpha or "
        "lower --devices"
    )


def _column(argument: str, labels: Sequence[str], devices: int, rng: np.random.Generator) -> Parts:
    """Keep rows of one value together; more values than devices share, largest value first."""
    del rng
    groups: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        groups.setdefault(label, []).append(row)
    if len(groups) < devices:
        raise DataError(
            f"column {argument} has {len(groups)} values, too few for {devices} devices; "
            "lower --devices"
        )
    parts: Parts = [[] for _ in range(devices)]
    for label in sorted(groups, key=lambda label: (-len(groups[label]), label)):
        min(parts, key=len).extend(groups[label])
    return parts


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise DataError(f"the Dirichlet alpha must be a number above 0, not {text!r}")
    return value


KINDS: dict[str, Callable[[str, Sequence[str], int, np.random.Generator], Parts]] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "column": _column,
}

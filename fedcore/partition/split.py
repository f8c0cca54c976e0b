"""A split of named rows: which device holds what, and the table of devices and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedcore.partition.kinds import Parts, parse_partition, partition

LABELS_SHOWN = 12
DEVICES = 3  # where neither a number nor a column says how many


@dataclass(frozen=True)
class SplitConfig:
    """What to split by: the kind, the column of labels ("": none), devices (0: found), the seed."""

    how: str = "iid"
    label_column: str = ""
    devices: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Split:
    """Each device's name, its rows, and the label of every row of the whole ("" without one)."""

    wanted: SplitConfig
    names: tuple[str, ...]
    parts: Parts
    labels: tuple[str, ...]

    @property
    def sizes(self) -> list[int]:
        return [len(part) for part in self.parts]

    def table(self, limit: int = LABELS_SHOWN) -> Table:
        """Counts by device and label, the commonest label first; the rarest share a column."""
        common = [label for label, _ in Counter(self.labels).most_common()]
        kept = common if len(common) <= limit else common[: limit - 1]
        found = [Counter(self.labels[row] for row in part) for part in self.parts]
        counts = [[held[label] for label in kept] for held in found]
        if rest := len(common) - len(kept):
            kept = [*kept, f"{rest} others"]
            counts = [
                [*row, len(part) - sum(row)] for row, part in zip(counts, self.parts, strict=True)
            ]
        return Table(self.names, tuple(kept), tuple(map(tuple, counts)))

    @property
    def distance(self) -> float:
        """How unlike the devices are: total variation between a device's labels and the others'.

        Mean over the rows; 0: every device is like the others, 1: no label is on two devices.
        """
        rows, whole, total = len(self.labels), Counter(self.labels), 0.0
        for part in self.parts:
            own, others = Counter(self.labels[row] for row in part), rows - len(part)
            gaps = (
                own[key] / len(part) - (whole[key] - own[key]) / others for key in whole if others
            )
            total += len(part) * sum(map(abs, gaps)) / 2
        return total / rows

    @property
    def evenness(self) -> float:
        """Jain's index of the sizes: 1 where all are alike, 1 / devices where one has all."""
        return sum(self.sizes) ** 2 / (len(self.parts) * sum(size**2 for size in self.sizes))


@dataclass(frozen=True)
class Table:
    """``counts[device][label]``."""

    devices: tuple[str, ...]
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def split(wanted: SplitConfig, rows: int, column: Callable[[str], Sequence[str]]) -> Split:
    """Deal ``rows`` rows out; ``column`` returns a column's values by its name.

    Without a number of devices: one for each value of ``column:NAME``, else three. Devices of a
    column are named after its values.
    """
    kind, argument = parse_partition(wanted.how)
    natural = kind == "column"
    shown = list(column(wanted.label_column)) if wanted.label_column else []
    dealt = list(column(argument)) if natural else shown
    count = wanted.devices or (len(set(dealt)) if natural else DEVICES)
    parts = partition(wanted.how, rows, count, wanted.seed, dealt)
    names = [f"device-{number:0{len(str(count - 1))}d}" for number in range(count)]
    if natural:
        names = _distinct([_named(sorted({dealt[row] for row in part})) for part in parts])
    return Split(wanted, tuple(names), parts, tuple(shown or dealt or [""] * rows))


def _named(values: Sequence[str]) -> str:
    return "+".join(values) if len(values) <= 3 else f"{values[0]}+{len(values) - 1} more"


def _distinct(names: list[str]) -> list[str]:
    """A value may hold a plus itself: names that would be the same get their devices' numbers."""
    while len(set(names)) < len(names):
        names = [
            f"{name} ({number})" if names.count(name) > 1 else name
            for number, name in enumerate(names)
        ]
    return names


def as_text(split: Split) -> str:
    """The table for a terminal, and two figures of how unlike the devices are."""
    table, total = split.table(), len(split.labels)
    heads = [label or "rows" for label in table.labels]
    wide = max(6, *(min(len(name), 24) for name in split.names))
    widths = [max(5, len(head)) for head in heads]
    lines = [_line("device", wide, ["rows", "share"], [6, 6], heads, widths)]
    for name, size, row in zip(split.names, split.sizes, table.counts, strict=True):
        cells = [str(size), f"{size / total:.1%}"]
        lines.append(_line(name, wide, cells, [6, 6], [str(count) for count in row], widths))
    return "\n".join([*lines, "", summary(split)])


def _line(
    name: str,
    wide: int,
    cells: Sequence[str],
    cell_widths: Sequence[int],
    counts: Sequence[str],
    widths: Sequence[int],
) -> str:
    padded = [text.rjust(width) for text, width in zip(cells, cell_widths, strict=True)]
    padded += [text.rjust(width) for text, width in zip(counts, widths, strict=True)]
    return "  ".join([name[:wide].ljust(wide), *padded])


def summary(split: Split) -> str:
    """One sentence: sizes, and how far the devices' labels are from those of the whole."""
    sizes = split.sizes
    words = (
        f"{split.wanted.how}, seed {split.wanted.seed}: {len(split.labels)} rows on {len(sizes)} "
        f"devices, {min(sizes)} to {max(sizes)} each (Jain {split.evenness:.2f})"
    )
    if len(set(split.labels)) < 2:
        return words
    return f"{words}; labels differ by {split.distance:.2f} (0: all alike, 1: disjoint)"

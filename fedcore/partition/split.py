"""A split of a dataset over devices, and its table of devices and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedcore.partition.kinds import Parts, parse_partition, partition

LABELS_SHOWN = 12
DEVICES = 3  # if neither the number nor a column is given


@dataclass(frozen=True)
class SplitConfig:
    """How to split: the kind (``how``), label column ("": none), devices (0: derived), seed."""

    how: str = "iid"
    label_column: str = ""
    devices: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Split:
    """Each device's name and rows, and the label of every row ("" without a label)."""

    config: SplitConfig
    names: tuple[str, ...]
    parts: Parts
    labels: tuple[str, ...]

    @property
    def sizes(self) -> list[int]:
        return [len(part) for part in self.parts]

    def table(self, limit: int = LABELS_SHOWN) -> Table:
        """Counts by device and label, most frequent label first; the rarest share a column."""
        common = [label for label, _ in Counter(self.labels).most_common()]
        columns = common if len(common) <= limit else common[: limit - 1]
        counters = [Counter(self.labels[row] for row in part) for part in self.parts]
        counts = [[counter[label] for label in columns] for counter in counters]
        if rest := len(common) - len(columns):
            columns = [*columns, f"{rest} others"]
            counts = [
                [*row, len(part) - sum(row)] for row, part in zip(counts, self.parts, strict=True)
            ]
        return Table(self.names, tuple(columns), tuple(map(tuple, counts)))

    @property
    def distance(self) -> float:
        """Total variation distance between a device's labels and the others', mean over the rows.

        0: all devices have the same distribution; 1: no label is on two devices.
        """
        rows, overall, total = len(self.labels), Counter(self.labels), 0.0
        for part in self.parts:
            counter, others = Counter(self.labels[row] for row in part), rows - len(part)
            gaps = (
                counter[key] / len(part) - (overall[key] - counter[key]) / others
                for key in overall
                if others
            )
            total += len(part) * sum(map(abs, gaps)) / 2
        return total / rows

    @property
    def evenness(self) -> float:
        """Jain's index of the sizes: 1 if all are equal, 1 / devices if one has all rows."""
        return sum(self.sizes) ** 2 / (len(self.parts) * sum(size**2 for size in self.sizes))


@dataclass(frozen=True)
class Table:
    """``counts[device][label]``."""

    devices: tuple[str, ...]
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def split(config: SplitConfig, rows: int, column: Callable[[str], Sequence[str]]) -> Split:
    """Split ``rows`` rows. ``column`` returns the values of a column by its name.

    Without a number of devices there is one for each value of ``column:NAME``, else three. Devices
    of a column are named after its values.
    """
    kind, argument = parse_partition(config.how)
    natural = kind == "column"
    labels = list(column(config.label_column)) if config.label_column else []
    keys = list(column(argument)) if natural else labels
    count = config.devices or (len(set(keys)) if natural else DEVICES)
    parts = partition(config.how, rows, count, config.seed, keys)
    names = [f"device-{number:0{len(str(count - 1))}d}" for number in range(count)]
    if natural:
        names = []
        for part in parts:
            values = sorted({keys[row] for row in part})
            few = len(values) <= 3
            names.append("+".join(values) if few else f"{values[0]}+{len(values) - 1} more")
        # Add the device's number to equal names, which arise if a value contains a plus.
        while len(set(names)) < len(names):
            names = [
                f"{name} ({number})" if names.count(name) > 1 else name
                for number, name in enumerate(names)
            ]
    return Split(config, tuple(names), parts, tuple(labels or keys or [""] * rows))


def as_text(split: Split) -> str:
    """The table for a terminal, and a summary."""
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
    """One sentence: the devices' sizes, and how far their labels differ."""
    sizes = split.sizes
    words = (
        f"{split.config.how}, seed {split.config.seed}: {len(split.labels)} rows on {len(sizes)} "
        f"devices, {min(sizes)} to {max(sizes)} each (Jain {split.evenness:.2f})"
    )
    if len(set(split.labels)) < 2:
        return words
    return f"{words}; labels differ by {split.distance:.2f} (0: all alike, 1: disjoint)"

"""A study's plots: curves over rounds, bars of final values, splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedcore.partition.__main__ import split_of
from fedcore.partition.drawing import draw, new_figure, save
from fedcore.study.metrics import METRICS
from fedcore.study.runs import RunStore
from fedcore.study.study import slug
from fedcore.study.summary import SummaryRow, rows, spread

# The Okabe-Ito palette, dark colours first, repeated with dashes.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", "--", ":")
ACROSS = 3  # panels in a row


def draw_study(shelf: RunStore, folder: Path) -> list[Path]:
    """Draw all plots into ``folder``. Returns the files, curves first."""
    folder.mkdir(parents=True, exist_ok=True)
    rows_by_split = {name: each for name, each in rows(shelf).items() if each}
    paths = []
    for name, each in rows_by_split.items():
        paths.append(folder / f"curves-{slug(name)}.png")
        _curves(each, shelf.study.curves, name, paths[-1])
    if rows_by_split:
        paths.append(folder / "bars.png")
        _bars(rows_by_split, shelf.study.metrics, paths[-1])
    for row in shelf.study.splits:
        paths.append(folder / f"split-{slug(row.name)}.png")
        draw(split_of(str(shelf.data), row.config(shelf.study.seeds[0])), paths[-1])
    return paths


def _panels(names: Sequence[str], wide: float, high: float) -> tuple[Any, list[Any]]:
    """A figure with one panel per metric. Unused panels are hidden."""
    across = min(ACROSS, len(names))
    down = -(-len(names) // across)
    figure = new_figure(wide * across, high * down)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for panel, name in zip(panels, names, strict=False):
        panel.set_title(METRICS[name].label, fontsize=9, loc="left")
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    return figure, panels[: len(names)]


def _curves(each: Sequence[SummaryRow], names: Sequence[str], title: str, path: Path) -> None:
    figure, panels = _panels(names, 4.2, 3.2)
    for panel, name in zip(panels, names, strict=True):
        for number, row in enumerate(each):
            points = row.curve(name)
            numbers = [at for at, _ in points]
            means = [value[0] for _, value in points]
            low = [mean - (off or 0) for _, (mean, off) in points]
            high = [mean + (off or 0) for _, (mean, off) in points]
            colour = COLOURS[number % len(COLOURS)]
            dash = DASHES[number // len(COLOURS) % len(DASHES)]
            panel.plot(numbers, means, dash, color=colour, label=row.method.name, linewidth=1.5)
            panel.fill_between(numbers, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.set_xlabel("round", fontsize=8)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(axis="y", alpha=0.25)
    _explained(figure, panels[0], f"{title}: mean and standard deviation over seeds", path)


def _bars(
    rows_by_split: Mapping[str, Sequence[SummaryRow]], names: Sequence[str], path: Path
) -> None:
    """One group per split, one bar per method."""
    methods = list(
        dict.fromkeys(row.method.name for each in rows_by_split.values() for row in each)
    )
    figure, panels = _panels(names, 4.2, 2.8)
    wide = 0.8 / len(methods)
    for panel, name in zip(panels, names, strict=True):
        for number, method in enumerate(methods):
            bars = [
                (place + (number + 0.5) * wide - 0.4, *spread(list(values.values())))
                for place, each in enumerate(rows_by_split.values())
                for row in each
                if row.method.name == method and (values := row.values(name))
            ]
            at, means, offs = zip(*bars, strict=True) if bars else ((), (), ())
            colour = COLOURS[number % len(COLOURS)]
            hatch = ("", "//", "..")[number // len(COLOURS) % 3]
            panel.bar(
                at,
                means,
                wide,
                yerr=[off or 0 for off in offs],
                color=colour,
                label=method,
                hatch=hatch,
            )
        panel.set_xticks(range(len(rows_by_split)), list(rows_by_split), fontsize=8)
        if not any(row.values(name) for each in rows_by_split.values() for row in each):
            panel.set_yticks([])
            panel.text(0.5, 0.5, "no value", ha="center", transform=panel.transAxes, fontsize=8)
    _explained(figure, panels[0], "At the end: mean and standard deviation over seeds", path)


def _explained(figure: Any, panel: Any, title: str, path: Path) -> None:
    """Add a title and a common legend, and write the file."""
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    handles, labels = panel.get_legend_handles_labels()
    across = min(4, len(labels))
    figure.legend(
        handles, labels, loc="outside lower left", ncols=across, fontsize=8, frameon=False
    )
    save(figure, path)

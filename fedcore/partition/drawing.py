"""Picture of a split: the share of each label on each device, and the devices' sizes.

matplotlib is imported on use, since web processes import this package.
"""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

from fedcore.errors import DataError
from fedcore.partition.split import Split, summary

COLOURS = 64  # of a PNG: a third of the bytes of true colour without a visible difference
ROOM_FOR_NUMBERS = 30  # devices; with more, cells are too small for numbers
MAX_DEVICES = 100  # in a picture


def draw(split: Split, path: Path) -> None:
    """Write a PNG: a row per device, a column per label, and bars of the sizes."""
    table = split.table()
    devices, labels = table.devices[:MAX_DEVICES], table.labels
    counts, sizes = table.counts[:MAX_DEVICES], split.sizes[:MAX_DEVICES]
    figure = new_figure(3.6 + 0.62 * len(labels), 1.9 + 0.28 * len(devices))
    width = max(8 * (6 + len(labels)), 48)
    title = "\n".join(textwrap.wrap(summary(split), width))
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    cells, bars = figure.subplots(1, 2, sharey=True, width_ratios=[max(len(labels), 2), 3])
    shares = [[count / size for count in row] for row, size in zip(counts, sizes, strict=True)]
    cells.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    cells.set_yticks(range(len(devices)), [name[:24] for name in devices], fontsize=8)
    texts = [label[:16] or "(none)" for label in labels]
    cells.set_xticks(range(len(labels)), texts, fontsize=8)
    cells.tick_params(axis="x", rotation=45)
    cells.set_title("rows of each label; colour: share of the device", fontsize=8, loc="left")
    if len(devices) <= ROOM_FOR_NUMBERS:
        for y, row in enumerate(counts):
            for x, count in enumerate(row):
                colour = "white" if shares[y][x] > 0.5 else "black"
                cells.text(x, y, count or "", ha="center", va="center", fontsize=7, color=colour)
    bars.barh(range(len(devices)), sizes, color="#0072b2")
    bars.set_title("rows", fontsize=8, loc="left")
    bars.tick_params(labelsize=8, left=False, labelleft=False)
    bars.spines[["top", "right", "left"]].set_visible(False)
    if len(devices) <= ROOM_FOR_NUMBERS:
        for y, size in enumerate(sizes):
            bars.text(size, y, f" {size}", va="center", fontsize=7)
        bars.set_xlim(0, 1.25 * max(sizes))
    save(figure, path)


def new_figure(wide: float, high: float) -> Any:
    """An empty matplotlib Figure, sizes in inches, without pyplot's global state and display.

    Raises DataError if matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        message = "pictures need matplotlib; pip install -r requirements-study.txt"
        raise DataError(message) from error
    figure = Figure(figsize=(wide, high), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: Path) -> None:
    """Write a figure as a small PNG of few colours."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    Image.open(buffer).convert("RGB").quantize(COLOURS).save(path, "PNG", optimize=True)

"""Devices side by side: what each can do and did, with a data-centre card as the reference.

Measured figures win over a data sheet's; which of the two a figure is, is always said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedcore.hardware.machines import MACHINES, MachineProfile
from fedcore.hardware.profile import hardware_of
from webapp.common.units import percent, si
from webapp.devices.models import Device
from webapp.jobs.analysis.device_metrics import Work, work_of
from webapp.jobs.models import Assignment, Job
from webapp.pages.devices.columns import COLUMNS, Column, Figure, Scale, scale_of

Json = dict[str, Any]
REFERENCES = ("h200", "h100", "a100", "l4")
ALIKE = 0.05  # peaks that differ by less are the same machine measured twice


@dataclass(frozen=True)
class Cell:
    """A figure, the length of its bar and where the reference's line crosses, both 0 to 1."""

    column: Column
    figure: Figure
    share: float | None
    line: float | None = None

    @property
    def text(self) -> str:
        return self.column.text(self.figure.value)


@dataclass(frozen=True)
class Head:
    """A column's title with its scale and where the reference's line stands."""

    column: Column
    scale: Scale
    reference: float | None

    @property
    def line(self) -> float | None:
        return self.scale.share(self.reference)

    @property
    def words(self) -> str:
        if not self.scale.high:
            return "nothing known yet"
        low, high = self.column.text(self.scale.low or 0.0), self.column.text(self.scale.high)
        return f"{'log, ' if self.scale.is_log else ''}{low} to {high}"

    @property
    def reference_text(self) -> str:
        return (
            self.column.text(self.reference) if self.reference is not None else "depends on the job"
        )


@dataclass(frozen=True)
class Line:
    """A device with its figures, and the job that the last three are of."""

    device: Device
    figures: Mapping[str, Figure]
    job: Job | None
    cells: tuple[Cell, ...] = ()

    @property
    def trained(self) -> str:
        """Model and method of the training."""
        if self.job is None:
            return "has not trained"
        spec = self.job.spec
        return f"{_part(spec, 'model', 'name')}, {_part(spec, 'adapter', 'kind')}"


def _part(spec: Mapping[str, Any], part: str, name: str) -> str:
    found = spec.get(part)
    return str(found.get(name) or "?") if isinstance(found, dict) else "?"


@dataclass(frozen=True)
class Comparison:
    reference: MachineProfile
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]

    @property
    def summary(self) -> str:
        """How the fleet stands against the reference, in one sentence."""
        known = [line for line in self.lines if line.figures["peak"].value]
        card = self.reference.peak_flops.get("bf16")
        if not known or not card:
            return ""
        peaks = [line.figures["peak"].value or 0.0 for line in known]
        alike = max(peaks) - min(peaks) <= ALIKE * max(peaks) and len(peaks) > 1
        best = known[peaks.index(max(peaks))].device.name
        first = "All are alike, at most" if alike else f"{best} is the fastest with"
        every = len(known) == len(self.lines)
        whom = f"all {len(known)}" if every else f"the {len(known)} whose peak is known"
        return (
            f"{first} {si(max(peaks), 'FLOP/s')}; "
            f"{whom} together have "
            f"{si(sum(peaks), 'FLOP/s')}, {percent(sum(peaks) / card)} of one "
            f"{self.reference.name}: {si(card, 'FLOP/s')} bf16, dense, by its data sheet."
        )

    @property
    def models(self) -> int:
        """How many models and methods the trainings are of: within one they compare."""
        return len({line.trained for line in self.lines if line.job is not None})


def compare(
    devices: Iterable[Device],
    trainings: Mapping[int, Assignment],
    reference: str = REFERENCES[0],
    sort: str = "peak",
) -> Comparison:
    """All these devices, the largest figure of ``sort`` first; those without one at the end."""
    card = MACHINES[reference if reference in REFERENCES else REFERENCES[0]]
    lines = [_line(device, trainings.get(device.pk)) for device in devices]
    heads = tuple(_head(column, lines, card) for column in COLUMNS)
    if sort in {column.key for column in COLUMNS}:
        lines.sort(key=lambda line: (-(line.figures[sort].value or 0.0), line.device.name))
    else:
        lines.sort(key=lambda line: line.device.name.lower())
    return Comparison(card, heads, tuple(_drawn(line, heads) for line in lines))


def _line(device: Device, part: Assignment | None) -> Line:
    hardware = hardware_of(device.profile)
    work = work_of(part) if part is not None else Work()
    figures = {column.key: column.of(hardware, work) for column in COLUMNS}
    return Line(device, figures, part.round.job if part is not None else None)


def _head(column: Column, lines: Iterable[Line], card: MachineProfile) -> Head:
    reference = column.reference(card)
    values = [line.figures[column.key].value for line in lines]
    return Head(column, scale_of([*values, reference], column.whole), reference)


def _drawn(line: Line, heads: Iterable[Head]) -> Line:
    cells = tuple(_cell(line.figures[head.column.key], head) for head in heads)
    return Line(line.device, line.figures, line.job, cells)


def _cell(figure: Figure, head: Head) -> Cell:
    return Cell(head.column, figure, head.scale.share(figure.value), head.line)


def told(found: Comparison) -> Json:
    """The comparison as plain values: SI units without prefixes."""
    return {
        "reference": {
            "id": found.reference.id,
            "name": found.reference.name,
            "source": found.reference.source,
            **{head.column.key: head.reference for head in found.heads},
        },
        "units": {column.key: column.unit for column in COLUMNS},
        "devices": [_told_line(line) for line in found.lines],
    }


def _told_line(line: Line) -> Json:
    figures = {
        key: {"value": figure.value, "source": figure.source, "note": figure.note}
        for key, figure in line.figures.items()
    }
    job = str(line.job.pk) if line.job is not None else None
    return {"id": line.device.pk, "name": line.device.name, "job": job, **figures}


def rows(found: Comparison) -> list[list[Any]]:
    """Head and rows of a CSV file; the reference is the first."""
    head = ["device", "job", "model", "method"]
    head += [f"{c.key}_{what}" for c in COLUMNS for what in ("value", "source", "note")]
    card: list[Any] = [found.reference.name, "", "", ""]
    for each in found.heads:
        known = each.reference is not None
        card += [each.reference, "data sheet" if known else "", ""]
    return [head, card, *(_csv_line(line) for line in found.lines)]


def _csv_line(line: Line) -> list[Any]:
    spec = line.job.spec if line.job is not None else {}
    job = line.job.name if line.job is not None else ""
    cells: list[Any] = [line.device.name, job, _part(spec, "model", "name") if spec else ""]
    cells.append(_part(spec, "adapter", "kind") if spec else "")
    for column in COLUMNS:
        figure = line.figures[column.key]
        cells += [figure.value, figure.source, figure.note]
    return cells

"""Devices side by side: what each can do and has reached, with a data-centre GPU for reference.

A measured figure wins over one from a data sheet, and each figure names its source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fedcore.hardware.machines import MACHINES, MachineProfile
from fedcore.hardware.profile import hardware_of
from webapp.common.units import percent, si
from webapp.devices.models import Device
from webapp.jobs.analysis.device_metrics import TrainingFigures, training_figures
from webapp.jobs.models import Assignment, Job
from webapp.pages.devices.columns import (
    COLUMNS,
    Column,
    Scale,
    SourcedValue,
    scale_of,
    values_of,
)

Json = dict[str, Any]
REFERENCES = ("h200", "h100", "a100", "l4")
# Peaks within 5 % of each other count as equal: probes of one machine differ by as much.
EQUAL_PEAKS = 0.05


@dataclass(frozen=True)
class ComparisonCell:
    """A figure with its bar: its length and the reference line, both from 0 to 1."""

    column: Column
    figure: SourcedValue
    share: float | None
    line: float | None = None

    @property
    def text(self) -> str:
        return self.column.text(self.figure.value)


@dataclass(frozen=True)
class ColumnHeader:
    """A column with its bar scale and the reference's value."""

    column: Column
    scale: Scale
    reference: float | None

    @property
    def line(self) -> float | None:
        """Position of the reference line, 0 to 1."""
        return self.scale.share(self.reference)

    @property
    def scale_text(self) -> str:
        if not self.scale.high:
            return "no data yet"
        low, high = self.column.text(self.scale.low or 0.0), self.column.text(self.scale.high)
        return f"{'log, ' if self.scale.is_log else ''}{low} to {high}"

    @property
    def reference_text(self) -> str:
        return (
            self.column.text(self.reference) if self.reference is not None else "depends on the job"
        )


@dataclass(frozen=True)
class ComparisonRow:
    """A device with its figures by column key, and the job of its training."""

    device: Device
    figures: Mapping[str, SourcedValue]
    job: Job | None
    cells: tuple[ComparisonCell, ...] = ()

    @property
    def workload(self) -> str:
        """Model and adapter that the device trained."""
        if self.job is None:
            return "has not trained"
        return ", ".join(_model_and_adapter(self.job.spec))


def _model_and_adapter(spec: Mapping[str, Any]) -> tuple[str, str]:
    """Names of the model and of the adapter kind, "?" where a stored spec lacks them."""
    model, adapter = spec.get("model"), spec.get("adapter")
    return (
        str(model.get("name") or "?") if isinstance(model, dict) else "?",
        str(adapter.get("kind") or "?") if isinstance(adapter, dict) else "?",
    )


@dataclass(frozen=True)
class Comparison:
    reference: MachineProfile
    headers: tuple[ColumnHeader, ...]
    rows: tuple[ComparisonRow, ...]

    @property
    def summary(self) -> str:
        """One sentence: the fleet's peak against the reference's."""
        known = [row for row in self.rows if row.figures["peak"].value]
        reference_peak = self.reference.peak_flops.get("bf16")
        if not known or not reference_peak:
            return ""
        peaks = [row.figures["peak"].value or 0.0 for row in known]
        fastest = known[peaks.index(max(peaks))].device.name
        top, total = si(max(peaks), "FLOP/s"), si(sum(peaks), "FLOP/s")
        share = (
            f"{percent(sum(peaks) / reference_peak)} of one {self.reference.name} "
            f"with {si(reference_peak, 'FLOP/s')} dense bf16 by its data sheet."
        )
        if len(self.rows) == 1:
            return f"{fastest} reaches {top}, {share}"
        are_equal = max(peaks) - min(peaks) <= EQUAL_PEAKS * max(peaks) and len(peaks) > 1
        best = (
            f"All are about equal, at most {top}"
            if are_equal
            else f"{fastest} is the fastest with {top}"
        )
        every = len(known) == len(self.rows)
        group = f"all {len(known)}" if every else f"the {len(known)} with a known peak"
        return f"{best}; {group} together reach {total}, {share}"

    @property
    def workload_count(self) -> int:
        """How many pairs of model and adapter were trained; figures compare within one only."""
        return len({row.workload for row in self.rows if row.job is not None})


def compare(
    devices: Iterable[Device],
    trainings: Mapping[int, Assignment],
    reference: str = REFERENCES[0],
    sort: str = "peak",
) -> Comparison:
    """Compare devices, the largest ``sort`` figure first; ``trainings`` is by device id."""
    machine = MACHINES[reference if reference in REFERENCES else REFERENCES[0]]
    rows = []
    for device in devices:
        training = trainings.get(device.pk)
        work = training_figures(training) if training is not None else TrainingFigures()
        job = training.round.job if training is not None else None
        rows.append(ComparisonRow(device, values_of(hardware_of(device.profile), work), job))
    headers = []
    for column in COLUMNS:
        of_machine = column.reference(machine)
        values = [*(row.figures[column.key].value for row in rows), of_machine]
        headers.append(ColumnHeader(column, scale_of(values, column.full_scale), of_machine))
    if sort in {column.key for column in COLUMNS}:
        rows.sort(key=lambda row: (-(row.figures[sort].value or 0.0), row.device.name))
    else:
        rows.sort(key=lambda row: row.device.name.lower())
    return Comparison(machine, tuple(headers), tuple(with_cells(row, headers) for row in rows))


def with_cells(row: ComparisonRow, headers: Iterable[ColumnHeader]) -> ComparisonRow:
    """The row with its bars on the scales of all rows."""
    cells = []
    for header in headers:
        figure = row.figures[header.column.key]
        share = header.scale.share(figure.value)
        cells.append(ComparisonCell(header.column, figure, share, header.line))
    return replace(row, cells=tuple(cells))


def to_json(comparison: Comparison) -> Json:
    """The comparison for the REST API: plain values in SI units without prefixes."""
    devices = []
    for row in comparison.rows:
        figures = {
            key: {"value": figure.value, "source": figure.source, "note": figure.note}
            for key, figure in row.figures.items()
        }
        job = str(row.job.pk) if row.job is not None else None
        devices.append({"id": row.device.pk, "name": row.device.name, "job": job, **figures})
    return {
        "reference": {
            "id": comparison.reference.id,
            "name": comparison.reference.name,
            "source": comparison.reference.source,
            **{header.column.key: header.reference for header in comparison.headers},
        },
        "units": {column.key: column.unit for column in COLUMNS},
        "devices": devices,
    }


def csv_rows(comparison: Comparison) -> list[list[Any]]:
    """Header and rows of the CSV file; the first row is the reference."""
    header = ["device", "job", "model", "method"]
    header += [f"{column.key}_{part}" for column in COLUMNS for part in ("value", "source", "note")]
    first: list[Any] = [comparison.reference.name, "", "", ""]
    for each in comparison.headers:
        first += [each.reference, "data sheet" if each.reference is not None else "", ""]
    rows = [header, first]
    for row in comparison.rows:
        job = [row.job.name, *_model_and_adapter(row.job.spec)] if row.job else ["", "", ""]
        cells: list[Any] = [row.device.name, *job]
        for column in COLUMNS:
            figure = row.figures[column.key]
            cells += [figure.value, figure.source, figure.note]
        rows.append(cells)
    return rows

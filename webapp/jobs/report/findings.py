"""Findings of a report: title, sentence, and the figures as evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from webapp.common.units import duration, percent, si, significant, size
from webapp.jobs.report.job_figures import JobFigures

Severity = Literal["good", "bad", "ugly"]
FORMS: dict[str, Callable[[float], str]] = {
    "share": percent,
    "s": duration,
    "B": size,
    "J": lambda value: si(value, "J"),
    "FLOP/s": lambda value: si(value, "FLOP/s"),
    "count": lambda value: f"{value:.0f}",
    "points": lambda value: f"{significant(value)} points",
    "": significant,
}


@dataclass(frozen=True)
class Evidence:
    """``unit``: share (of 1), s, B, J, FLOP/s, count, points (of F1 in percent), or none."""

    label: str
    value: float
    unit: str = ""

    @property
    def text(self) -> str:
        return FORMS[self.unit](self.value)


@dataclass(frozen=True)
class Finding:
    """good: the hardware was used well; bad: waste; ugly: a failure, or unfair to devices."""

    severity: Severity
    title: str
    sentence: str
    evidence: tuple[Evidence, ...]
    key: str = ""


Check = Callable[[JobFigures], Finding | None]


def listed(names: list[str], most: int = 4) -> str:
    """``a, b and c``; of more than ``most`` names the rest is counted."""
    parts = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)

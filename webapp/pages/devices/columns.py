"""The figures that devices are compared by: where each is read, its unit and its bar scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fedcore.hardware.machines import MachineProfile
from fedcore.hardware.profile import Hardware
from webapp.common.units import percent, plausible, si
from webapp.jobs.analysis.device_metrics import TrainingFigures

# From this ratio of largest to smallest value, short bars would vanish on a linear scale.
LOG_FROM = 20.0


@dataclass(frozen=True)
class SourcedValue:
    """A figure with its source: measured, data sheet or estimated.

    ``note`` adds a detail, such as the precision.
    """

    value: float | None = None
    source: str = ""
    note: str = ""


UNKNOWN = SourcedValue()


@dataclass(frozen=True)
class Column:
    """One figure of the table.

    ``reference`` reads it from a data-centre GPU's data sheet; None if the data sheet lacks it.
    ``full_scale`` is the value of a full bar, where that is fixed.
    """

    key: str
    label: str
    unit: str
    text: Callable[[float | None], str]
    reference: Callable[[MachineProfile], float | None] = lambda _: None
    full_scale: float | None = None


COLUMNS = (
    Column(
        "peak",
        "Peak",
        "FLOP/s",
        lambda value: si(value, "FLOP/s"),
        lambda machine: machine.peak_flops.get("bf16"),
    ),
    Column(
        "bandwidth",
        "Memory bandwidth",
        "B/s",
        lambda value: si(value, "B/s"),
        lambda machine: machine.memory_bandwidth_bps,
    ),
    Column("tokens", "Tokens/s", "tokens/s", si),
    Column("mfu", "MFU", "% of its own peak", percent, full_scale=1.0),
    Column("eta", "Tokens per joule", "tokens/s/W", si),
)


def values_of(hardware: Hardware, work: TrainingFigures) -> dict[str, SourcedValue]:
    """A device's value for each column, from its profile and its training."""
    peaks = {name: peak for name, peak in hardware.peak_flops.items() if name in ("fp32", "bf16")}
    precision = max(peaks, key=lambda name: peaks[name]) if peaks else ""
    energy_source = "estimated" if work.is_estimated else "measured"
    return {
        "peak": _from_profile(hardware, "peak_flops", peaks.get(precision), precision),
        "bandwidth": _from_profile(hardware, "bandwidth_bps", hardware.bandwidth_bps),
        "tokens": SourcedValue(work.tokens_per_s, "measured") if work.tokens_per_s else UNKNOWN,
        "mfu": UNKNOWN if work.mfu is None else SourcedValue(work.mfu, "measured", work.precision),
        "eta": SourcedValue(work.eta_e, energy_source) if work.eta_e else UNKNOWN,
    }


def _from_profile(
    hardware: Hardware, key: str, value: float | None, note: str = ""
) -> SourcedValue:
    if value is None:
        return UNKNOWN
    source = "measured" if key in hardware.measured else "data sheet"
    return SourcedValue(plausible(value), source, note)


@dataclass(frozen=True)
class Scale:
    """Where the bars of a column begin and end."""

    low: float
    high: float
    is_log: bool

    def share(self, value: float | None) -> float | None:
        """Length of a bar as a share of the longest, 0 to 1."""
        if value is None or self.high <= 0 or value <= 0:
            return None if value is None else 0.0
        if not self.is_log:
            return min(1.0, value / self.high)
        return (math.log10(value) - math.log10(self.low)) / math.log10(self.high / self.low)


def scale_of(values: Iterable[float | None], full_scale: float | None = None) -> Scale:
    """A scale that fits every value; a logarithmic one begins and ends at powers of ten."""
    known = [value for value in values if value is not None and value > 0]
    if not known:
        return Scale(0.0, full_scale or 0.0, False)
    if full_scale is not None:
        return Scale(0.0, max(full_scale, *known), False)
    if max(known) / min(known) < LOG_FROM:
        return Scale(0.0, max(known), False)
    low = 10.0 ** (math.ceil(math.log10(min(known))) - 1)
    return Scale(low, 10.0 ** math.ceil(math.log10(max(known))), True)

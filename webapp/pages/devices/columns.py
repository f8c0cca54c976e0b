"""Which figures of devices are compared, where each is read, and the scale its bars have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fedcore.hardware.machines import MachineProfile
from fedcore.hardware.profile import Hardware
from webapp.common.units import percent, plausible, si
from webapp.jobs.analysis.device_metrics import Work

# From this ratio of largest to smallest on, bars of the small could not be seen on a linear scale.
LOG_FROM = 20.0


@dataclass(frozen=True)
class Figure:
    """``source``: measured, data sheet or estimated; ``note`` says more, such as the precision."""

    value: float | None = None
    source: str = ""
    note: str = ""


NOTHING = Figure()


@dataclass(frozen=True)
class Column:
    """``of`` reads a device's figure; ``reference`` that of a data-centre card, None: has none."""

    key: str
    label: str
    unit: str
    text: Callable[[float | None], str]
    of: Callable[[Hardware, Work], Figure]
    reference: Callable[[MachineProfile], float | None] = lambda _: None
    whole: float | None = None  # what a full bar stands for, where that is fixed


def _peak(hardware: Hardware, _: Work) -> Figure:
    known = {name: peak for name, peak in hardware.peak_flops.items() if name in ("fp32", "bf16")}
    if not known:
        return NOTHING
    best = max(known, key=lambda name: known[name])
    return _sheet_or_measured(hardware, "peak_flops", known[best], best)


def _bandwidth(hardware: Hardware, _: Work) -> Figure:
    if hardware.bandwidth_bps is None:
        return NOTHING
    return _sheet_or_measured(hardware, "bandwidth_bps", hardware.bandwidth_bps)


def _sheet_or_measured(hardware: Hardware, key: str, value: float, note: str = "") -> Figure:
    source = "measured" if key in hardware.measured else "data sheet"
    return Figure(plausible(value), source, note)


def _tokens(_: Hardware, work: Work) -> Figure:
    return Figure(work.tokens_per_s, "measured") if work.tokens_per_s else NOTHING


def _mfu(_: Hardware, work: Work) -> Figure:
    return Figure(work.mfu, "measured", work.precision) if work.mfu is not None else NOTHING


def _eta(_: Hardware, work: Work) -> Figure:
    source = "estimated" if work.is_estimated else "measured"
    return Figure(work.eta_e, source) if work.eta_e else NOTHING


COLUMNS = (
    Column(
        "peak",
        "Peak",
        "FLOP/s",
        lambda value: si(value, "FLOP/s"),
        _peak,
        lambda card: card.peak_flops.get("bf16"),
    ),
    Column(
        "bandwidth",
        "Memory bandwidth",
        "B/s",
        lambda value: si(value, "B/s"),
        _bandwidth,
        lambda card: card.memory_bandwidth_bps,
    ),
    Column("tokens", "Tokens/s", "tokens/s", si, _tokens),
    Column("mfu", "MFU", "% of its own peak", percent, _mfu, whole=1.0),
    Column("eta", "Tokens/s/W", "tokens/s/W", si, _eta),
)


@dataclass(frozen=True)
class Scale:
    """Where bars of a column begin and end."""

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


def scale_of(values: Iterable[float | None], whole: float | None = None) -> Scale:
    """A scale that holds every value; decades at both ends where it is logarithmic."""
    known = [value for value in values if value is not None and value > 0]
    if not known:
        return Scale(0.0, whole or 0.0, False)
    if whole is not None:
        return Scale(0.0, max(whole, *known), False)
    if max(known) / min(known) < LOG_FROM:
        return Scale(0.0, max(known), False)
    low = 10.0 ** (math.ceil(math.log10(min(known))) - 1)
    return Scale(low, 10.0 ** math.ceil(math.log10(max(known))), True)

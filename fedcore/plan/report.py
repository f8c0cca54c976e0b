"""A fleet plan as JSON values, and as a text table."""

from __future__ import annotations

import math
from typing import Any

from fedcore.plan.cost.device_plan import PHASES, DevicePlan
from fedcore.plan.planner import FleetPlan


def _device_values(plan: DevicePlan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "fits": plan.fits,
        "why": plan.why,
        "precision": plan.precision,
        "micro_batch": plan.micro_batch,
        "steps": plan.steps,
        "memory_bytes": plan.memory.peak,
        "memory_parts": dict(plan.memory.parts),
        "step_s": plan.step_s,
        "step_phases": dict(plan.step.phases) if plan.step else {},
        "mfu": plan.step.mfu if plan.step else None,
        "flops_per_byte": plan.step.flops_per_byte if plan.step else None,
        "round_s": plan.busy_s,
        "round_phases": {name: plan.seconds.get(name) for name in PHASES},
        "bytes_down": plan.bytes_down,
        "bytes_down_last": plan.bytes_down_last,
        "bytes_up": plan.bytes_up,
        "codec": plan.codec,
        "compute_j": plan.energy.compute_j,
        "communication_j": plan.energy.communication_j,
        "waiting_j": plan.energy.waiting_j,
        "granularity": plan.granularity,
        "cost_usd": plan.cost,
        "notes": list(plan.notes),
        "planned": plan.allocation
        and {
            "ranks": {name: rank for name, rank in plan.allocation.ranks.items() if rank},
            "matrices": len(plan.allocation.ranks),
            "batch_size": plan.allocation.setting.batch,
            "at_once": plan.allocation.setting.at_once,
            "base": plan.allocation.setting.base,
            "score": plan.allocation.score,
            "memory_bytes": plan.allocation.memory,
            "train_s": plan.allocation.seconds,
            "why": plan.allocation.why,
        },
    }


def fleet_values(plan: FleetPlan) -> dict[str, Any]:
    """Every figure of a plan; None if it is not known or infinite."""
    best = plan.best
    values = {
        "devices": [_device_values(device) for device in plan.devices],
        "fitting": len(plan.fitting),
        "rounds": plan.rounds,
        "updates": plan.updates,
        "round_s": plan.round_s,
        "total_s": plan.total_s,
        "total_j": plan.total_j,
        "total_bytes": plan.total_bytes,
        "slowest": plan.slowest,
        "best_change": best
        and {
            "id": best.change.id,
            "text": best.change.text,
            "round_s": best.round_s,
            "fitting": best.fitting,
            "saved": best.saved,
        },
    }
    cleaned: dict[str, Any] = _finite(values)
    return cleaned


def _finite(value: Any) -> Any:
    """The value without infinities, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


COLUMNS = (
    "device", "fits", "memory", "step", "download", "train", "evaluate", "upload", "wait",
    "down", "up", "joules", "G", "MFU",
)  # fmt: skip


def as_text(plan: FleetPlan) -> str:
    """A table of the devices, followed by notes and advice."""
    rows = [COLUMNS, *(_cells(device) for device in plan.devices)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = []
    for name, *figures in rows:
        padded = [cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *_sentences(plan)])


def _cells(plan: DevicePlan) -> tuple[str, ...]:
    seconds = [_seconds(plan.seconds.get(name)) for name in PHASES]
    mfu = f"{plan.step.mfu:.1%}" if plan.step else "–"
    return (
        plan.name,
        "yes" if plan.fits else "no",
        _si(plan.memory.peak, "B"),
        _seconds(plan.step_s),
        *seconds,
        _si(plan.bytes_down, "B"),
        _si(plan.bytes_up, "B"),
        _si(plan.energy.total_j, "J") + ("" if plan.energy.complete else "*"),
        "–" if plan.granularity is None else f"{plan.granularity:.3g}",
        mfu,
    )


def _sentences(plan: FleetPlan) -> list[str]:
    lines = [f"{device.name}: {device.why}" for device in plan.devices if not device.fits]
    lines += [f"{device.name}: {note}" for device in plan.devices for note in device.notes]
    energies = [device.energy for device in plan.devices]
    if any(each.compute_j is not None and not each.complete for each in energies):
        lines.append("* energy of computing only: the idle power is not known")
    # The download grows alike on all devices.
    growing = [row for row in plan.devices if row.bytes_down_last > row.bytes_down]
    if growing:
        mean, last = (
            _si(size, "B") for size in (growing[0].bytes_down, growing[0].bytes_down_last)
        )
        total = _si(plan.total_bytes, "B")
        lines.append(
            f"The download grows to {last} ({mean} in a mean round); all rounds move {total}."
        )
    if plan.round_s is not None:
        lines.append(
            f"A round takes {_seconds(plan.round_s)}, {plan.rounds} rounds take "
            f"{_seconds(plan.total_s)}; {plan.slowest} is the slowest."
        )
    if not plan.advised:
        return lines
    best = plan.best
    if best is None:
        text = "None of the changes tried would help."
    elif best.fitting > len(plan.fitting):
        text = f"Biggest improvement: {best.change.text}; then {best.fitting} devices fit."
    else:
        text = (
            f"Biggest saving: {best.change.text}; a round then takes {_seconds(best.round_s)} "
            f"({best.saved:.0%} less)."
        )
    return [*lines, text]


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    for least, unit in ((7200, "h"), (180, "min")):
        if value >= least:
            return f"{value / (3600 if unit == 'h' else 60):.3g} {unit}"
    return f"{value:.3g} s" if value >= 1 or value == 0 else f"{1000 * value:.3g} ms"


def _si(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    power = 0
    while abs(value) >= 999.5 and power < 5:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {('', 'k', 'M', 'G', 'T', 'P')[power]}{unit}"

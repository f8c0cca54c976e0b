"""A plan as plain values for JSON, and as text for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fedcore.plan.device_plan import PHASES, DevicePlan
from fedcore.plan.fedpipe.types import Allocation
from fedcore.plan.planner import FleetPlan


def _device(plan: DevicePlan) -> dict[str, Any]:
    held = plan.memory
    return {
        "name": plan.name,
        "fits": plan.fits,
        "why": plan.why,
        "precision": plan.precision,
        "micro_batch": plan.micro_batch,
        "steps": plan.steps,
        "memory_bytes": held.peak,
        "memory_parts": dict(held.parts),
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
        "planned": plan.planned and _choice(plan.planned),
    }


def _choice(choice: Allocation) -> dict[str, Any]:
    return {
        "ranks": {name: rank for name, rank in choice.ranks.items() if rank},
        "matrices": len(choice.ranks),
        "batch_size": choice.setting.batch,
        "at_once": choice.setting.at_once,
        "base": choice.setting.base,
        "score": choice.score,
        "memory_bytes": choice.memory,
        "train_s": choice.seconds,
        "why": choice.why,
    }


def fleet_values(plan: FleetPlan) -> dict[str, Any]:
    """Every figure of a plan; None where it cannot be known or is infinite."""
    best = plan.best
    found = {
        "devices": [_device(device) for device in plan.devices],
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
    cleaned: dict[str, Any] = _finite(found)
    return cleaned


def _finite(value: Any) -> Any:
    """JSON knows no infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


HEADS = (
    "device", "fits", "memory", "step", "download", "train", "evaluate", "upload", "wait",
    "down", "up", "joules", "G", "MFU",
)  # fmt: skip


def as_text(plan: FleetPlan) -> str:
    """The table, and what a reader should take from it."""
    rows = [HEADS, *(_cells(device) for device in plan.devices)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *_sentences(plan)])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = row
    others = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
    return "  ".join([first.ljust(widths[0]), *others])


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
        _si(plan.energy.total_j, "J") + ("" if plan.energy.whole else "*"),
        "–" if plan.granularity is None else f"{plan.granularity:.3g}",
        mfu,
    )


def _sentences(plan: FleetPlan) -> list[str]:
    lines = [f"{device.name}: {device.why}" for device in plan.devices if not device.fits]
    lines += [f"{device.name}: {note}" for device in plan.devices for note in device.notes]
    if any(
        device.energy.compute_j is not None and not device.energy.whole for device in plan.devices
    ):
        lines.append("* joules of computing alone: the idle watts are not known")
    lines += _growing(plan)
    if plan.round_s is not None:
        lines.append(
            f"A round takes {_seconds(plan.round_s)}, {plan.rounds} of them "
            f"{_seconds(plan.total_s)}; {plan.slowest} is the slowest."
        )
    return [*lines, _advice(plan)] if plan.advised else lines


def _growing(plan: FleetPlan) -> list[str]:
    """That the way down grows, where it does; it is the same for all devices."""
    some = next((row for row in plan.devices if row.bytes_down_last > row.bytes_down), None)
    if some is None:
        return []
    mean, last = (_si(size, "B") for size in (some.bytes_down, some.bytes_down_last))
    total = _si(plan.total_bytes, "B")
    return [f"The way down grows to {last}, {mean} in a mean round; all rounds move {total}."]


def _advice(plan: FleetPlan) -> str:
    best = plan.best
    if best is None:
        return "No change that was tried would help."
    if best.fitting > len(plan.fitting):
        return f"What would help most: {best.change.text}; then {best.fitting} devices fit."
    return (
        f"What would help most: {best.change.text}; a round then takes {_seconds(best.round_s)} "
        f"({best.saved:.0%} less)."
    )


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

"""The benchmark's figures as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.orchestration.measured_job import RoundTimings

HEAD = (
    "| payload | devices | model MB | s a round (median) | 10 % | 90 % | MB up | MB down | "
    "server above idle MB | agent peak MB |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def row(found: RoundTimings) -> str:
    tenth, *_, ninetieth = statistics.quantiles(found.round_s, n=10, method="inclusive")
    cells = [
        found.payload,
        str(found.devices),
        _mb(found.model_bytes),
        f"{found.median_s:.3f}",
        f"{tenth:.3f}",
        f"{ninetieth:.3f}",
        _mb(found.bytes_up),
        _mb(found.bytes_down),
        _mb(found.above_idle_bytes),
        _mb(found.agent_peak_bytes),
    ]
    return f"| {' | '.join(cells)} |"


def peer_row(name: str, ours: RoundTimings, seconds: Sequence[float]) -> str:
    """A peer's round beside ours."""
    theirs = statistics.median(seconds)
    return (
        f"{name}: {ours.payload} x {ours.devices}: {theirs:.2f} s a round (median of "
        f"{len(seconds)}), {theirs / ours.median_s:.1f} times ours"
    )


def steps(found: RoundTimings) -> str:
    shown = ", ".join(f"{name} {seconds:.3f}" for name, seconds in found.steps_s.items())
    used = ", ".join(f"{name} {seconds:.3f}" for name, seconds in sorted(found.cpu_s.items()))
    return f"  steps of the last device, s: {shown}\n  CPU a round, s: {used}"


def memory(found: Sequence[RoundTimings]) -> str:
    """Each server process before and at its peak, in the most demanding job."""
    worst = max(found, key=lambda item: item.above_idle_bytes)
    lines = [f"\nServer processes, {worst.payload} x {worst.devices}, resident MB (idle -> peak):"]
    for name, peak in sorted(worst.server_peak_bytes.items()):
        lines.append(f"- {name}: {_mb(worst.server_idle_bytes.get(name, 0))} -> {_mb(peak)}")
    return "\n".join(lines)


def _mb(count: float) -> str:
    return f"{count / 1e6:.3f}" if count < 1e6 else f"{count / 1e6:.1f}"

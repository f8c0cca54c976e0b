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


def row(timings: RoundTimings) -> str:
    tenth, *_, ninetieth = statistics.quantiles(timings.round_s, n=10, method="inclusive")
    cells = [
        timings.payload,
        str(timings.devices),
        _mb(timings.model_bytes),
        f"{timings.median_s:.3f}",
        f"{tenth:.3f}",
        f"{ninetieth:.3f}",
        _mb(timings.bytes_up),
        _mb(timings.bytes_down),
        _mb(timings.above_idle_bytes),
        _mb(timings.agent_peak_bytes),
    ]
    return f"| {' | '.join(cells)} |"


def peer_row(name: str, ours: RoundTimings, seconds: Sequence[float]) -> str:
    """A peer's round beside ours."""
    theirs = statistics.median(seconds)
    return (
        f"{name}: {ours.payload} x {ours.devices}: {theirs:.2f} s a round (median of "
        f"{len(seconds)}), {theirs / ours.median_s:.1f} times ours"
    )


def steps(timings: RoundTimings) -> str:
    delays = ", ".join(f"{name} {seconds:.3f}" for name, seconds in timings.steps_s.items())
    used = ", ".join(f"{name} {seconds:.3f}" for name, seconds in sorted(timings.cpu_s.items()))
    return f"  steps of the last device, s: {delays}\n  CPU a round, s: {used}"


def memory(timings: Sequence[RoundTimings]) -> str:
    """Each server process before and at its peak, in the most demanding job."""
    worst = max(timings, key=lambda item: item.above_idle_bytes)
    lines = [f"\nServer processes, {worst.payload} x {worst.devices}, resident MB (idle -> peak):"]
    for name, peak in sorted(worst.server_peak_bytes.items()):
        lines.append(f"- {name}: {_mb(worst.server_idle_bytes.get(name, 0))} -> {_mb(peak)}")
    return "\n".join(lines)


def _mb(count: float) -> str:
    return f"{count / 1e6:.3f}" if count < 1e6 else f"{count / 1e6:.1f}"

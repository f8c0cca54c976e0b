"""Every value a sample may carry: its unit, and what a page says it means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """``low`` and ``high`` bound what is believed; ``unit`` is what an axis shows."""

    label: str
    unit: str
    low: float = 0.0
    high: float = math.inf


METRICS: dict[str, Metric] = {
    "step": Metric("Step", ""),
    "loss": Metric("Training loss", "nats per token"),
    "learning_rate": Metric("Learning rate", ""),
    "tokens": Metric("Tokens, padding not counted", "tokens"),
    "tokens_per_s": Metric("Throughput, padding not counted", "tokens/s"),
    "flops": Metric("Needed FLOPs", "FLOP"),
    "flops_per_s": Metric("Needed FLOPs per second", "FLOP/s"),
    "mfu": Metric("MFU", "share of the measured peak", high=4.0),
    "mfu_peak_flops": Metric("Peak the MFU refers to", "FLOP/s"),
    "load_s": Metric("Data loading", "s"),
    "forward_s": Metric("Forward", "s"),
    "loss_s": Metric("Loss", "s"),
    "backward_s": Metric("Backward", "s"),
    "optimizer_s": Metric("Optimizer", "s"),
    "peak_memory_bytes": Metric("Peak memory", "B"),
    "memory_bytes": Metric("Memory of the agent", "B"),
    "cpu_percent": Metric("CPU of the agent", "% of one core"),
    "watts": Metric("Power", "W"),
    "net_up_bytes": Metric("Sent since the last sample", "B"),
    "net_down_bytes": Metric("Received since the last sample", "B"),
    "net_up_bps": Metric("Upload", "B/s"),
    "net_down_bps": Metric("Download", "B/s"),
}


def faults_of(values: Mapping[str, object]) -> list[str]:
    """What is wrong with a sample's values: unknown names, no number, out of range."""
    faults = []
    for name, value in values.items():
        metric = METRICS.get(name)
        if metric is None:
            faults.append(f"unknown value {name!r}")
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            faults.append(f"{name} must be a number")
        elif not math.isfinite(value) or not metric.low <= value <= metric.high:
            faults.append(f"{name} must be from {metric.low:g} to {metric.high:g}, not {value!r}")
    return faults

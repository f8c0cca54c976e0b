"""Every value a sample may carry: its unit, and what a page says it means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedcore.spec.checks import shown
from fedcore.spec.options.method import FEDPIPE_SCORES

# No quantity here comes near it; an integer beyond every float would break whoever adds it up.
LARGEST = 1e30
LONGEST_TEXT = 200
# A device is one machine, of at most twice the power of the largest server with eight cards
# (10.2 kW: NVIDIA DGX H100/H200 user guide), and an assignment takes days at most.
MOST_WATTS = 20_000.0
MOST_JOULES = MOST_WATTS * 7 * 86_400
LONGEST_TRIP_S = 600.0
MOST_REWARD = 1e6
PARTS = ("compute_j", "communication_j", "waiting_j")
TOTALS = ("energy_j", "energy_estimated_j")


@dataclass(frozen=True)
class Metric:
    """``low`` and ``high`` bound what is believed; ``unit`` is what an axis shows.

    ``rolled`` says what one value of several is: their mean, their sum or the highest.
    """

    label: str
    unit: str
    low: float = 0.0
    high: float = math.inf
    rolled: str = "mean"


METRICS: dict[str, Metric] = {
    "step": Metric("Step", "", rolled="highest"),
    "loss": Metric("Training loss", "nats per token"),
    "reward": Metric("Mean reward of the samples of this round", "", low=-MOST_REWARD),
    "learning_rate": Metric("Learning rate", ""),
    "tokens": Metric("Tokens, padding not counted", "tokens", rolled="sum"),
    "tokens_per_s": Metric("Throughput, padding not counted", "tokens/s"),
    "flops": Metric("Needed FLOPs", "FLOP", rolled="sum"),
    "flops_per_s": Metric("Needed FLOPs per second", "FLOP/s"),
    "mfu": Metric("MFU", "share of the measured peak", high=4.0),
    "mfu_peak_flops": Metric("Peak the MFU refers to", "FLOP/s", rolled="highest"),
    "load_s": Metric("Data loading", "s", rolled="sum"),
    "forward_s": Metric("Forward", "s", rolled="sum"),
    "loss_s": Metric("Loss", "s", rolled="sum"),
    "backward_s": Metric("Backward", "s", rolled="sum"),
    "optimizer_s": Metric("Optimizer", "s", rolled="sum"),
    "peak_memory_bytes": Metric("Peak memory", "B", rolled="highest"),
    "memory_bytes": Metric("Memory of the agent", "B"),
    "cpu_percent": Metric("CPU of the agent", "% of one core"),
    # Measured by a sensor; the second where there is none and the device's profile says its power.
    "watts": Metric("Power", "W", high=MOST_WATTS),
    "watts_estimated": Metric("Power, estimated from the profile", "W", high=MOST_WATTS),
    "energy_j": Metric("Energy since the last sample", "J", high=MOST_JOULES, rolled="sum"),
    "energy_estimated_j": Metric(
        "Energy since the last sample, estimated", "J", high=MOST_JOULES, rolled="sum"
    ),
    "rtt_s": Metric("Round-trip time to the server", "s", high=LONGEST_TRIP_S),
    "retransfer_bytes": Metric("Sent or received again since the last sample", "B", rolled="sum"),
    "net_up_bytes": Metric("Sent since the last sample", "B", rolled="sum"),
    "net_down_bytes": Metric("Received since the last sample", "B", rolled="sum"),
    "net_up_bps": Metric("Upload", "B/s"),
    "net_down_bps": Metric("Download", "B/s"),
}


# What a device reports of a whole assignment; other names may carry a number or a short text.
REPORTED: dict[str, Metric] = {
    **{name: METRICS[name] for name in ("loss", "tokens", "flops", "mfu", "mfu_peak_flops")},
    "peak_memory_bytes": METRICS["peak_memory_bytes"],
    "rouge1": Metric("ROUGE-1", "F1 in percent", high=100.0),
    "rouge2": Metric("ROUGE-2", "F1 in percent", high=100.0),
    "rougeL": Metric("ROUGE-L", "F1 in percent", high=100.0),
    # Of the device's own model, where the method gives it one.
    "personal_loss": Metric("Loss of the device's own model", "nats per token"),
    "personal_rouge1": Metric("ROUGE-1 of its own model", "F1 in percent", high=100.0),
    "personal_rouge2": Metric("ROUGE-2 of its own model", "F1 in percent", high=100.0),
    "personal_rougeL": Metric("ROUGE-L of its own model", "F1 in percent", high=100.0),
    # Of PFIT: of samples, and of the validation part by the received model and by the device's own.
    "reward": METRICS["reward"],
    "reward_before": Metric("Reward of the received model", "", low=-MOST_REWARD),
    "reward_after": Metric("Reward of the device's own model", "", low=-MOST_REWARD),
    "steps": Metric("Steps", ""),
    "examples": Metric("Examples", ""),
    "seconds": Metric("Time", "s"),
    "download_s": Metric("Download", "s"),
    "upload_s": Metric("Upload", "s"),
    "wait_s": Metric("Waiting for the server", "s"),
    # Energy of the whole assignment by a sensor, or estimated, and its parts by what was going on.
    "energy_j": Metric("Energy", "J", high=MOST_JOULES),
    "energy_estimated_j": Metric("Energy, estimated from the profile", "J", high=MOST_JOULES),
    "compute_j": Metric("Energy while computing", "J", high=MOST_JOULES),
    "communication_j": Metric("Energy while sending and receiving", "J", high=MOST_JOULES),
    "waiting_j": Metric("Energy while waiting", "J", high=MOST_JOULES),
    # Bytes counted at the socket, headers included.
    "net_up_bytes": Metric("Sent", "B"),
    "net_down_bytes": Metric("Received", "B"),
    "retransfer_bytes": Metric("Sent or received again", "B"),
    "rtt_s": METRICS["rtt_s"],
}
PHASES_KEY = "phase_s"
# Values by a name of their own each: seconds of a phase, FedPipe's score of a matrix.
GROUPS: Mapping[str, tuple[str, Metric]] = {
    PHASES_KEY: ("seconds", METRICS["load_s"]),
    FEDPIPE_SCORES: ("scores", Metric("Sensitivity of a matrix", "")),
}


def faults_of(values: Mapping[str, object]) -> list[str]:
    """What is wrong with a sample's values: unknown names, no number, out of range."""
    faults = []
    for name, value in values.items():
        metric = METRICS.get(name)
        faults.append(_fault(name, value, metric) if metric else f"unknown value {shown(name)}")
    return [fault for fault in faults if fault]


def report_faults(values: Mapping[str, object]) -> list[str]:
    """What is wrong with the metrics of a report."""
    faults = []
    for name, value in values.items():
        if name in GROUPS and isinstance(value, dict):
            faults += [
                _fault(f"{name}.{key}", item, GROUPS[name][1]) for key, item in value.items()
            ]
        elif name in GROUPS:
            faults.append(f"{name} must be an object of {GROUPS[name][0]}")
        elif name in REPORTED:
            faults.append(_fault(name, value, REPORTED[name]))
        else:
            faults.append(_unknown_fault(name, value))
    found = [fault for fault in faults if fault]
    return found or _energy_faults(values)


def _energy_faults(values: Mapping[str, Any]) -> list[str]:
    """Parts without a total, or that do not sum to it. All values are numbers in range."""
    told = [name for name in TOTALS if name in values]
    parts = [name for name in PARTS if name in values]
    if not parts:
        return []
    if len(told) != 1:
        return [f"{', '.join(parts)} need one of {' and '.join(TOTALS)}"]
    total, whole = float(values[told[0]]), math.fsum(values[name] for name in parts)
    if len(parts) == len(PARTS) and math.isclose(total, whole, rel_tol=0.01, abs_tol=1.0):
        return []
    return [f"{told[0]} is {total:g} J where {', '.join(PARTS)} sum to {whole:g} J"]


def _fault(name: str, value: object, metric: Metric) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{name} must be a number"
    high = min(metric.high, LARGEST)
    if not metric.low <= value <= high:
        return f"{name} must be from {metric.low:g} to {high:g}, not {shown(value)}"
    return ""


def _unknown_fault(name: str, value: object) -> str:
    if isinstance(value, str):
        return "" if len(value) <= LONGEST_TEXT else f"{name} is over {LONGEST_TEXT} characters"
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, (int, float)) and -LARGEST <= value <= LARGEST:
        return ""
    return f"{shown(name)} must be a number or a short text"

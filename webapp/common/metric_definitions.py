"""Values of samples and reports: label, unit and bounds of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedcore.spec.checks import quoted
from fedcore.spec.options.method import FEDPIPE_SCORES

# Far above every quantity here; larger integers would overflow sums of floats.
LARGEST = 1e30
MAX_TEXT = 200
# A device is one machine, of at most twice the power of the largest server with eight cards
# (10.2 kW: NVIDIA DGX H100/H200 user guide), and an assignment takes days at most.
MAX_WATTS = 20_000.0
MAX_JOULES = MAX_WATTS * 7 * 86_400
MAX_RTT_S = 600.0
MAX_REWARD = 1e6
PARTS = ("compute_j", "communication_j", "waiting_j")
TOTALS = ("energy_j", "energy_estimated_j")


@dataclass(frozen=True)
class MetricDefinition:
    """``low``, ``high``: bounds of plausible values; ``unit``: for a chart's axis.

    ``rolled``: how the roll-up merges values ("mean", "sum" or "highest").
    """

    label: str
    unit: str
    low: float = 0.0
    high: float = math.inf
    rolled: str = "mean"


METRICS: dict[str, MetricDefinition] = {
    "step": MetricDefinition("Step", "", rolled="highest"),
    "loss": MetricDefinition("Training loss", "nats per token"),
    "reward": MetricDefinition("Mean reward of the samples of this round", "", low=-MAX_REWARD),
    "learning_rate": MetricDefinition("Learning rate", ""),
    "tokens": MetricDefinition("Tokens, padding not counted", "tokens", rolled="sum"),
    "tokens_per_s": MetricDefinition("Throughput, padding not counted", "tokens/s"),
    "flops": MetricDefinition("Needed FLOPs", "FLOP", rolled="sum"),
    "flops_per_s": MetricDefinition("Needed FLOPs per second", "FLOP/s"),
    "mfu": MetricDefinition("MFU", "share of the measured peak", high=4.0),
    "mfu_peak_flops": MetricDefinition("Peak the MFU refers to", "FLOP/s", rolled="highest"),
    "load_s": MetricDefinition("Data loading", "s", rolled="sum"),
    "forward_s": MetricDefinition("Forward", "s", rolled="sum"),
    "loss_s": MetricDefinition("Loss", "s", rolled="sum"),
    "backward_s": MetricDefinition("Backward", "s", rolled="sum"),
    "optimizer_s": MetricDefinition("Optimizer", "s", rolled="sum"),
    "peak_memory_bytes": MetricDefinition("Peak memory", "B", rolled="highest"),
    "memory_bytes": MetricDefinition("Memory of the agent", "B"),
    "cpu_percent": MetricDefinition("CPU of the agent", "% of one core"),
    # By a sensor; without one, estimated from the power in the device's profile.
    "watts": MetricDefinition("Power", "W", high=MAX_WATTS),
    "watts_estimated": MetricDefinition("Power, estimated from the profile", "W", high=MAX_WATTS),
    "energy_j": MetricDefinition(
        "Energy since the last sample", "J", high=MAX_JOULES, rolled="sum"
    ),
    "energy_estimated_j": MetricDefinition(
        "Energy since the last sample, estimated", "J", high=MAX_JOULES, rolled="sum"
    ),
    "rtt_s": MetricDefinition("Round-trip time to the server", "s", high=MAX_RTT_S),
    "retransfer_bytes": MetricDefinition(
        "Sent or received again since the last sample", "B", rolled="sum"
    ),
    "net_up_bytes": MetricDefinition("Sent since the last sample", "B", rolled="sum"),
    "net_down_bytes": MetricDefinition("Received since the last sample", "B", rolled="sum"),
    "net_up_bps": MetricDefinition("Upload", "B/s"),
    "net_down_bps": MetricDefinition("Download", "B/s"),
}


# Values of a report on a whole assignment; other names may have a number or a short text.
REPORTED: dict[str, MetricDefinition] = {
    **{name: METRICS[name] for name in ("loss", "tokens", "flops", "mfu", "mfu_peak_flops")},
    "peak_memory_bytes": METRICS["peak_memory_bytes"],
    "rouge1": MetricDefinition("ROUGE-1", "F1 in percent", high=100.0),
    "rouge2": MetricDefinition("ROUGE-2", "F1 in percent", high=100.0),
    "rougeL": MetricDefinition("ROUGE-L", "F1 in percent", high=100.0),
    # Of the device's personalised model, where the method has one.
    "personal_loss": MetricDefinition("Loss of the personalised model", "nats per token"),
    "personal_rouge1": MetricDefinition(
        "ROUGE-1 of the personalised model", "F1 in percent", high=100.0
    ),
    "personal_rouge2": MetricDefinition(
        "ROUGE-2 of the personalised model", "F1 in percent", high=100.0
    ),
    "personal_rougeL": MetricDefinition(
        "ROUGE-L of the personalised model", "F1 in percent", high=100.0
    ),
    # PFIT: of samples, and of validation summaries by the received and by the trained model.
    "reward": METRICS["reward"],
    "reward_before": MetricDefinition("Reward of the received model", "", low=-MAX_REWARD),
    "reward_after": MetricDefinition("Reward of the trained model", "", low=-MAX_REWARD),
    "steps": MetricDefinition("Steps", ""),
    "examples": MetricDefinition("Examples", ""),
    "seconds": MetricDefinition("Time", "s"),
    "download_s": MetricDefinition("Download", "s"),
    "upload_s": MetricDefinition("Upload", "s"),
    "wait_s": MetricDefinition("Waiting for the server", "s"),
    # Energy of the whole assignment by a sensor or estimated, and its parts by activity.
    "energy_j": MetricDefinition("Energy", "J", high=MAX_JOULES),
    "energy_estimated_j": MetricDefinition(
        "Energy, estimated from the profile", "J", high=MAX_JOULES
    ),
    "compute_j": MetricDefinition("Energy while computing", "J", high=MAX_JOULES),
    "communication_j": MetricDefinition("Energy while sending and receiving", "J", high=MAX_JOULES),
    "waiting_j": MetricDefinition("Energy while waiting", "J", high=MAX_JOULES),
    # Bytes counted at the socket, headers included.
    "net_up_bytes": MetricDefinition("Sent", "B"),
    "net_down_bytes": MetricDefinition("Received", "B"),
    "retransfer_bytes": MetricDefinition("Sent or received again", "B"),
    "rtt_s": METRICS["rtt_s"],
}
PHASES_KEY = "phase_s"
# Objects of named values: seconds of a phase, FedPipe's score of a matrix.
GROUPS: Mapping[str, tuple[str, MetricDefinition]] = {
    PHASES_KEY: ("seconds", METRICS["load_s"]),
    FEDPIPE_SCORES: ("scores", MetricDefinition("Sensitivity of a matrix", "")),
}


def faults_of(values: Mapping[str, object]) -> list[str]:
    """Faults of a sample's values: unknown name, not a number, out of range."""
    faults = []
    for name, value in values.items():
        metric = METRICS.get(name)
        faults.append(_fault(name, value, metric) if metric else f"unknown value {quoted(name)}")
    return [fault for fault in faults if fault]


def report_faults(values: Mapping[str, object]) -> list[str]:
    """Faults of the metrics of a report."""
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
        elif isinstance(value, str):
            if len(value) > MAX_TEXT:
                faults.append(f"{name} is over {MAX_TEXT} characters")
        elif value is not None:
            is_number = isinstance(value, (int, float)) and -LARGEST <= value <= LARGEST
            if not is_number:
                faults.append(f"{quoted(name)} must be a number or a short text")
    return [fault for fault in faults if fault] or _energy_faults(values)


def _energy_faults(values: Mapping[str, Any]) -> list[str]:
    """Parts without a total, or with another sum. All values must be valid numbers."""
    totals = [name for name in TOTALS if name in values]
    parts = [name for name in PARTS if name in values]
    if not parts:
        return []
    if len(totals) != 1:
        return [f"{', '.join(parts)} need one of {' and '.join(TOTALS)}"]
    total, parts_j = float(values[totals[0]]), math.fsum(values[name] for name in parts)
    if len(parts) == len(PARTS) and math.isclose(total, parts_j, rel_tol=0.01, abs_tol=1.0):
        return []
    return [f"{totals[0]} is {total:g} J where {', '.join(PARTS)} sum to {parts_j:g} J"]


def _fault(name: str, value: object, metric: MetricDefinition) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{name} must be a number"
    high = min(metric.high, LARGEST)
    if not metric.low <= value <= high:
        return f"{name} must be from {metric.low:g} to {high:g}, not {quoted(value)}"
    return ""

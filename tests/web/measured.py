"""Jobs whose devices measured everything: phases, energy, traffic at the socket.

One device has a power sensor, one has its power estimated, one has neither, as in real fleets.
"""

from __future__ import annotations

from typing import Any

from fedcore.spec.rewards import weighted
from tests.web import factories
from webapp.devices.models import Device
from webapp.jobs.models import Assignment, Job
from webapp.telemetry.models import Sample

SHARES = {"load": 0.04, "forward": 0.27, "loss": 0.06, "backward": 0.52, "optimizer": 0.08}
WATTS = (None, ("watts", 21.0), ("watts_estimated", 48.0))
TOKENS_PER_S = (700, 5200, 2300)
KERNELS = (
    ("linear 512x1024", 64.0, 0.61),
    ("linear 512x512", 42.0, 0.48),
    ("attention 512", 18.0, 0.23),
    ("cross-entropy 32128", 9.0, 0.14),
    ("optimizer step", 0.25, 0.004),
)


def measured_job(devices: list[Device], rounds: int = 4, **options: Any) -> Job:
    """A completed job over these devices, with everything a report needs."""
    job = factories.running_job(devices, rounds=rounds, samples=14, **options)
    parts = list(Assignment.objects.filter(round__job=job, task="train").exclude(metrics={}))
    for part in parts:
        part.metrics = {**part.metrics, **reported(part)}
    Assignment.objects.bulk_update(parts, ["metrics"])
    samples = list(Sample.objects.filter(assignment__round__job=job))
    for sample in samples:
        slot = sample.assignment.slot if sample.assignment else 0
        power = WATTS[slot % 3]
        phases = {f"{name}_s": share for name, share in SHARES.items()}
        sample.values |= phases | ({power[0]: power[1]} if power else {})
    Sample.objects.bulk_update(samples, ["values"])
    return job


# What the devices are paid for in turn, and one device's rewards in its first and last round.
WEIGHTS = ("1+0+0", "0+1+0", "1+0.5+0.5")
REWARDS = ((0.15, 0.16, 0.14), (0.2, 0.17, 0.18))


def rewarded_job(devices: list[Device], rounds: int = 3, **options: Any) -> Job:
    """A PFIT job with rewards; those of the second slot are 0.5 above the first.

    The last closed round is not evaluated: it has rewards of its training samples only.
    """
    options |= {
        "adapter": {"kind": "layers"},
        "method": {"name": "pfit", "rewards": "overlap,brevity:0.1,leak", "weights": WEIGHTS},
    }
    job = factories.running_job(devices, rounds=rounds, samples=6, **options)
    for person in job.participants.all():
        words = weighted(job.spec["method"]["rewards"], WEIGHTS, person.slot, "")
        person.tailoring = {"method.rewards": words}
        person.save(update_fields=["tailoring"])
    parts = Assignment.objects.filter(round__job=job, task="train", phase="folded")
    for part in parts.select_related("round"):
        rewards = REWARDS[part.round.number > 1]
        before, after, sampled = (value + 0.5 * part.slot for value in rewards)
        part.metrics |= {"reward": sampled}
        if part.round.number < rounds - 1:
            part.metrics |= {"reward_before": before, "reward_after": after}
        part.save(update_fields=["metrics"])
    return job


def reported(part: Assignment) -> dict[str, Any]:
    """Metrics that an agent reports of a training."""
    seconds = float(part.metrics["seconds"])
    tokens = round(seconds * TOKENS_PER_S[part.slot % 3])
    flops = part.metrics["mfu"] * part.metrics["mfu_peak_flops"] * seconds
    metrics: dict[str, Any] = {
        "tokens": tokens,
        "flops": flops,
        "steps": 30,
        "phase_s": {name: share * seconds for name, share in SHARES.items()},
        "wait_s": 0.4,
        "net_up_bytes": part.bytes_up + 2_400,
        "net_down_bytes": part.bytes_down + 1_900,
        "retransfer_bytes": 0,
        "rtt_s": 0.012,
        "peak_memory_bytes": 1.1e9,
    }
    power = WATTS[part.slot % 3]
    if power:
        kind = "energy_j" if power[0] == "watts" else "energy_estimated_j"
        metrics |= {
            kind: power[1] * (seconds + 4.5),
            "compute_j": power[1] * seconds,
            "communication_j": power[1] * 4.0,
            "waiting_j": power[1] * 0.5,
        }
    return metrics


def probe(device: Device) -> None:
    """Fill a device's profile as the hardware probe does."""
    peak = max(value for value in device.profile["peak_flops"].values() if value)
    precision = max(device.profile["peak_flops"], key=device.profile["peak_flops"].__getitem__)
    device.profile |= {
        "kernels": [
            {"name": name, "precision": precision, "flops_per_s": share * peak, "flops_per_byte": i}
            for name, i, share in KERNELS
        ],
        "disk_read_bps": 1.9e9,
        "disk_write_bps": 8.2e8,
        "power_sensor": "ina3221" if "Jetson" in device.profile["kind"] else "",
        "memory_bandwidth_bps": peak / 40,
    }
    device.save(update_fields=["profile"])

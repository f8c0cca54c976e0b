"""The roofline of a device (Williams, Waterman, Patterson, CACM 52(4), 2009), and a job's bound.

A product of I FLOPs per byte of memory traffic can reach min(peak, I x bandwidth) FLOP/s. The ridge
is the I at which both are equal. Below it memory is the bound, above it arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fedcore.hardware.profile import hardware_of

Bound = Literal["compute", "bandwidth", "input", "network", "unknown"]
COMPUTE_PHASES = ("forward_s", "loss_s", "backward_s", "optimizer_s")
TRANSFER_PHASES = ("download_s", "upload_s")


@dataclass(frozen=True)
class RooflinePoint:
    """A measured product or a whole job: its FLOPs per byte, and the FLOP/s that it reached."""

    name: str
    flops_per_byte: float
    flops_per_s: float


@dataclass(frozen=True)
class Roofline:
    """FLOP/s and bytes/s; None: not known. ``measured``: neither is from a data sheet."""

    precision: str
    peak_flops: float | None
    bandwidth_bps: float | None
    points: tuple[RooflinePoint, ...] = ()
    measured: bool = False

    @property
    def ridge(self) -> float | None:
        if not self.peak_flops or not self.bandwidth_bps:
            return None
        return self.peak_flops / self.bandwidth_bps

    def ceiling(self, flops_per_byte: float) -> float | None:
        """The FLOP/s that a product of that intensity can reach."""
        if not self.peak_flops or not self.bandwidth_bps:
            return self.peak_flops
        return min(self.peak_flops, flops_per_byte * self.bandwidth_bps)


@dataclass(frozen=True)
class Verdict:
    """``text``: what the bound is and how far; ``advice``: what would help most."""

    bound: Bound
    text: str
    advice: str


def roofline(profile: Mapping[str, Any], precision: str = "auto") -> Roofline:
    """A device's roofline in one precision, with its measured kernels as points."""
    hardware = hardware_of(profile)
    used = hardware.precision_of(precision)
    return Roofline(
        precision=used,
        peak_flops=hardware.peak_flops.get(used),
        bandwidth_bps=hardware.bandwidth_bps,
        points=tuple(
            RooflinePoint(row.name, row.flops_per_byte, row.flops_per_s)
            for row in hardware.kernels
            if row.precision == used
        ),
        measured={"peak_flops", "bandwidth_bps"} <= hardware.measured,
    )


def verdict(
    roof: Roofline, seconds: Mapping[str, float], flops_per_byte: float | None = None
) -> Verdict:
    """What limits a device's work.

    ``seconds``: by phase (``load_s``, ``forward_s``, …, ``download_s``, ``upload_s``);
    ``flops_per_byte``: the job's FLOPs per byte of memory traffic.
    """
    compute_s = _sum(seconds, COMPUTE_PHASES)
    transfer_s = _sum(seconds, TRANSFER_PHASES)
    load_s = _sum(seconds, ("load_s",))
    total_s = compute_s + transfer_s + load_s
    if compute_s <= 0:
        return Verdict("unknown", "nothing has been measured yet", "let the device train a round")
    if transfer_s >= max(compute_s, load_s):
        up = (seconds.get("upload_s") or 0) >= (seconds.get("download_s") or 0)
        way, option = ("upload", "wire.uplink int8") if up else ("download", "wire.downlink int8")
        return Verdict(
            "network",
            f"{transfer_s / total_s:.0%} of a round is spent on transfers, most of it on the {way}",
            f"send fewer bytes ({option}, or LoRA of a lower rank), train more steps a round, or "
            "put an aggregator near the device",
        )
    if load_s >= compute_s:
        share = f"{load_s / (load_s + compute_s):.0%} of a step is spent on reading the data"
        return Verdict("input", share, "keep the tokenized data on a faster disk, or in memory")
    return _hardware_verdict(roof, flops_per_byte)


def _sum(seconds: Mapping[str, float], names: tuple[str, ...]) -> float:
    return sum(max(0.0, seconds.get(name) or 0.0) for name in names)


def _hardware_verdict(roof: Roofline, flops_per_byte: float | None) -> Verdict:
    ridge = roof.ridge
    if flops_per_byte is None or ridge is None:
        text = "the device computes most of the time; its roofline is not known"
        return Verdict("unknown", text, "measure the device (python -m workers.agent probe)")
    facts = f"{flops_per_byte:.3g} FLOP per byte against a ridge of {ridge:.3g}"
    if flops_per_byte < ridge:
        return Verdict(
            "bandwidth",
            f"memory bandwidth limits: {facts}",
            "move fewer bytes: bf16, an int8 or nf4 base, or a larger batch, so that weights are "
            "read once for more tokens",
        )
    precise = "" if roof.precision == "bf16" else "bf16 where the hardware has it; "
    return Verdict(
        "compute",
        f"arithmetic limits: {facts}",
        f"{precise}LoRA instead of full training, shorter sources, or fewer local steps",
    )

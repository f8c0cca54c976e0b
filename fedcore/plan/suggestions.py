"""Changes to a job that may shorten its rounds or let more devices take part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedcore.errors import SpecError
from fedcore.hardware.links import LINKS
from fedcore.plan.cost.candidate import Candidate, steps_of
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec

NEAR = LINKS["lan"]
Changed = tuple[JobSpec, Sequence[Candidate]]
Apply = Callable[[JobSpec, Sequence[Candidate]], Changed | None]


@dataclass(frozen=True)
class Change:
    """``price``: 0 free, 1 some precision or a little set-up, 2 quality of learning or another
    machine, 3 more of that. ``apply`` returns the changed job and devices; None: no change.
    """

    id: str
    text: str
    price: int
    apply: Apply


def _with(spec: JobSpec, group: str, **values: Any) -> JobSpec | None:
    """The job with other options; None if nothing changes or the result is not valid."""
    old = getattr(spec, group)
    new = replace(spec, **{group: replace(old, **values)})
    if new == spec:
        return None
    try:
        return parse_spec(new.to_dict())
    except SpecError:
        return None


def _options(group: str, **values: Any) -> Apply:
    """Set options of one group."""
    return _job(lambda spec: _with(spec, group, **values))


def _job(change: Callable[[JobSpec], JobSpec | None]) -> Apply:
    """Change the job alone."""

    def apply(spec: JobSpec, devices: Sequence[Candidate]) -> Changed | None:
        new = change(spec)
        return None if new is None else (new, devices)

    return apply


def _train_in_bf16(spec: JobSpec, devices: Sequence[Candidate]) -> Changed | None:
    """Only if every device has bf16: one that lacks it would emulate it."""
    if not all("bf16" in device.hardware.peak_flops for device in devices):
        return None
    return _options("train", precision="bf16")(spec, devices)


def _train_lora(spec: JobSpec) -> JobSpec | None:
    return None if spec.adapter.family.freezes_base else _with(spec, "adapter", kind="lora")


def _halve_rank(spec: JobSpec) -> JobSpec | None:
    if not spec.adapter.family.trains_low_rank_factors or spec.adapter.rank < 2:
        return None
    return _with(spec, "adapter", rank=spec.adapter.rank // 2)


def _halve_steps(of: Callable[[Iterable[int]], int]) -> Apply:
    """Give every device half the steps of the device with the most (``max``) or fewest."""

    def apply(spec: JobSpec, devices: Sequence[Candidate]) -> Changed | None:
        half = of(steps_of(spec, device) for device in devices) // 2 if devices else 0
        if half < 1:
            return None
        warmup = min(half, spec.train.warmup_steps)
        return _options("train", local_steps=half, warmup_steps=warmup)(spec, devices)

    return apply


def _send_int8_updates(spec: JobSpec) -> JobSpec | None:
    return _with(spec, "wire", uplink="int8") if spec.wire.uplink not in ("int8", "int4") else None


def _send_int8_models(spec: JobSpec) -> JobSpec | None:
    return _with(spec, "wire", downlink="int8") if spec.wire.downlink == "fp32" else None


def _add_near_aggregator(spec: JobSpec, devices: Sequence[Candidate]) -> Changed | None:
    """Devices send their updates to an aggregator in their own network."""
    if all(device.link is None or device.link.up_bps >= NEAR.up_bps for device in devices):
        return None
    moved = [replace(device, link=NEAR if device.link else None) for device in devices]
    return spec, moved


CHANGES: tuple[Change, ...] = (
    Change("bf16", "train in bf16", 0, _train_in_bf16),
    Change("fast", "use the fast kernels", 0, _options("train", kernels="fast")),
    Change("uplink-int8", "send updates as int8", 1, _job(_send_int8_updates)),
    Change("downlink-int8", "send models as int8 steps", 1, _job(_send_int8_models)),
    Change("checkpointing", "use gradient checkpointing", 1, _options("train", checkpointing=True)),
    Change("base-int8", "hold the frozen base in int8", 1, _options("model", base="int8")),
    Change("base-nf4", "hold the frozen base in nf4", 2, _options("model", base="nf4")),
    Change("rank", "halve the LoRA rank", 2, _job(_halve_rank)),
    Change("lora", "train LoRA instead of every weight", 2, _job(_train_lora)),
    Change("fewer-steps", "halve the local steps of a round", 2, _halve_steps(max)),
    Change(
        "fewest-steps",
        "run half as many steps as your smallest device does, on every device",
        3,
        _halve_steps(min),
    ),
    Change("near", "add an aggregator in the devices' own network", 2, _add_near_aggregator),
)

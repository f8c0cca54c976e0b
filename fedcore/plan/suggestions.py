"""Changes to a job that may make its rounds shorter or let more devices take part."""

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


@dataclass(frozen=True)
class Change:
    """``price``: 0 costs nothing, 1 some precision or a small thing to set up, 2 learning or a
    machine, 3 more of it. ``apply`` returns the changed job and devices; None: nothing changes.
    """

    id: str
    text: str
    price: int
    apply: Callable[[JobSpec, Sequence[Candidate]], Changed | None]


def _with(spec: JobSpec, group: str, **values: Any) -> JobSpec | None:
    """The job with other options; None where they go against its rules."""
    old = getattr(spec, group)
    new = replace(spec, **{group: replace(old, **values)})
    if new == spec:
        return None
    try:
        return parse_spec(new.to_dict())
    except SpecError:
        return None


def _job(make: Callable[[JobSpec], JobSpec | None]) -> Callable[..., Changed | None]:
    """A change of the job alone."""

    def apply(spec: JobSpec, devices: Sequence[Candidate]) -> Changed | None:
        new = make(spec)
        return None if new is None else (new, devices)

    return apply


def _bf16(spec: JobSpec, devices: Sequence[Candidate]) -> Changed | None:
    """Only where every device can: one that lacks bf16 would emulate it."""
    if not all("bf16" in device.hardware.peak_flops for device in devices):
        return None
    new = _with(spec, "train", precision="bf16")
    return None if new is None else (new, devices)


def _lora(spec: JobSpec) -> JobSpec | None:
    return None if spec.adapter.family.freezes_base else _with(spec, "adapter", kind="lora")


def _rank(spec: JobSpec) -> JobSpec | None:
    if not spec.adapter.family.trains_low_rank_factors or spec.adapter.rank < 2:
        return None
    return _with(spec, "adapter", rank=spec.adapter.rank // 2)


def _base(kind: str) -> Callable[[JobSpec], JobSpec | None]:
    return lambda spec: _with(spec, "model", base=kind) if spec.model.base != kind else None


def _fewer_steps(of: Callable[[Iterable[int]], int]) -> Callable[..., Changed | None]:
    """Every device then does half of the steps that the one with the most (or fewest) does now."""

    def apply(spec: JobSpec, devices: Sequence[Candidate]) -> Changed | None:
        half = of(steps_of(spec, device) for device in devices) // 2 if devices else 0
        if half < 1:
            return None
        warmup = min(half, spec.train.warmup_steps)
        new = _with(spec, "train", local_steps=half, warmup_steps=warmup)
        return None if new is None else (new, devices)

    return apply


def _uplink(spec: JobSpec) -> JobSpec | None:
    return _with(spec, "wire", uplink="int8") if spec.wire.uplink not in ("int8", "int4") else None


def _downlink(spec: JobSpec) -> JobSpec | None:
    return _with(spec, "wire", downlink="int8") if spec.wire.downlink == "fp32" else None


def _near(spec: JobSpec, devices: Sequence[Candidate]) -> Changed | None:
    """Devices hand their updates to an aggregator of their own network."""
    if all(device.link is None or device.link.up_bps >= NEAR.up_bps for device in devices):
        return None
    moved = [replace(device, link=NEAR if device.link else None) for device in devices]
    return spec, moved


def _checkpointing(spec: JobSpec) -> JobSpec | None:
    return _with(spec, "train", checkpointing=True)


CHANGES: tuple[Change, ...] = (
    Change("bf16", "train in bf16", 0, _bf16),
    Change(
        "fast", "use the fast kernels", 0, _job(lambda spec: _with(spec, "train", kernels="fast"))
    ),
    Change("uplink-int8", "send updates as int8", 1, _job(_uplink)),
    Change("downlink-int8", "send models as int8 steps", 1, _job(_downlink)),
    Change("checkpointing", "switch on gradient checkpointing", 1, _job(_checkpointing)),
    Change("base-int8", "keep the frozen base in int8", 1, _job(_base("int8"))),
    Change("base-nf4", "keep the frozen base in nf4", 2, _job(_base("nf4"))),
    Change("rank", "halve the LoRA rank", 2, _job(_rank)),
    Change("lora", "train LoRA instead of every weight", 2, _job(_lora)),
    Change("fewer-steps", "halve the local steps of a round", 2, _fewer_steps(max)),
    Change(
        "fewest-steps",
        "run half as many steps as your smallest device does, on every device",
        3,
        _fewer_steps(min),
    ),
    Change("near", "put an aggregator into the devices' own network", 2, _near),
)

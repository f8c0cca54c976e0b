"""One device's part of a round, before it happens: memory, time by phase, bytes, joules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from fedcore.architecture.sizes import Architecture
from fedcore.plan.cost.candidate import Candidate, at_once, steps_of, validation_examples
from fedcore.plan.cost.coefficients import PADDED_SHARE
from fedcore.plan.cost.energy import energy
from fedcore.plan.cost.memory import Memory, largest_micro_batch, memory, usable
from fedcore.plan.cost.pfit_round import READINGS, PpoSchedule, mean_step, sample_memory
from fedcore.plan.cost.step_time import Step, evaluation_s, step
from fedcore.plan.cost.traffic import bytes_down, uplink
from fedcore.plan.cost.workload import BatchShape, Workload
from fedcore.plan.device_plan import DevicePlan
from fedcore.spec.job import JobSpec
from fedcore.spec.options.method import LocalTraining

PRECISIONS = ("fp32", "bf16")


def plan_device(spec: JobSpec, sizes: Architecture, device: Candidate) -> DevicePlan:
    """What a round of the job comes to on one device, waiting left out."""
    return plan_devices(spec, sizes, [device])[0]


def plan_devices(
    spec: JobSpec, sizes: Architecture, devices: Sequence[Candidate]
) -> list[DevicePlan]:
    """The same for each of several devices."""
    ways = itertools.product(PRECISIONS, (False, True))
    methods = {way: Workload.of(spec, sizes, *way) for way in ways}
    share = spec.evaluation.share(spec.rounds)
    wanted = spec.train.precision
    used = [methods[d.hardware.precision_of(wanted), d.hardware.accelerator] for d in devices]
    pairs = zip(used, devices, strict=True)
    return [_planned(spec, method, device, share) for method, device in pairs]


def _planned(spec: JobSpec, method: Workload, device: Candidate, share: float) -> DevicePlan:
    """``share``: of the rounds, those that evaluate."""
    footprint = _memory(spec, method, device)
    pace = _pace(spec, method, device, footprint.examples)
    one = pace and pace.mean
    steps = steps_of(spec, device)
    train_s = None if one is None else steps * one.seconds
    up, down = uplink(spec, method, device.link, train_s), bytes_down(spec, method)
    found = DevicePlan(
        name=device.name,
        why=_why(device, footprint),
        precision=method.precision,
        memory=footprint,
        micro_batch=footprint.examples,
        steps=steps,
        bytes_down=down,
        bytes_down_last=down,
        bytes_up=up.payload(method.sent_up)[1],
        codec=str(up),
        step=one,
        notes=tuple(_notes(device, one, method.precision)),
    )
    evaluate_s = _evaluate_s(spec, method, device, pace)
    return _timed(found, device, train_s, evaluate_s and share * evaluate_s)


def fetching(plan: DevicePlan, device: Candidate, mean: int, last: int) -> DevicePlan:
    """The same plan where other bytes come down, a mean of the rounds and in the last of them."""
    found = replace(plan, bytes_down=mean, bytes_down_last=last)
    if device.link is None:
        return found
    seconds = {**plan.seconds, "download_s": device.link.down_s(mean)}
    return replace(found, seconds=seconds, cost=device.link.cost(mean + plan.bytes_up))


def with_waiting(plan: DevicePlan, device: Candidate, round_s: float) -> DevicePlan:
    """The same plan in a round that lasts so long, with its joules."""
    busy = plan.busy_s
    if busy is None:
        return plan
    seconds = {**plan.seconds, "wait_s": max(0.0, round_s - busy)}
    computing = seconds["train_s"] + seconds["evaluate_s"]
    travelling = seconds["download_s"] + seconds["upload_s"]
    joules = energy(device.hardware, computing, travelling, seconds["wait_s"])
    return replace(plan, seconds=seconds, energy=joules)


def _memory(spec: JobSpec, method: Workload, device: Candidate) -> Memory:
    source, target = device.longest
    limit = usable(device.hardware.memory_bytes)
    accelerator = device.hardware.accelerator
    work = BatchShape(at_once(spec, source + target), source, target)
    return micro_batch_memory(spec, method, work, limit, accelerator)


def micro_batch_memory(
    spec: JobSpec,
    method: Workload,
    work: BatchShape,
    limit: float | None,
    accelerator: bool = False,
) -> Memory:
    """Memory with as many of the examples of ``work`` at a time as fit; with one where none do."""
    return COSTS[spec.method.family.training].memory(spec, method, work, limit, accelerator)


def _reference_memory(
    spec: JobSpec, method: Workload, work: BatchShape, limit: float | None, accelerator: bool
) -> Memory:
    if spec.train.micro_batch:
        return memory(method, work, accelerator)
    return largest_micro_batch(method, work, limit, accelerator)


def _why(device: Candidate, footprint: Memory) -> str:
    limit = usable(device.hardware.memory_bytes)
    if limit is None or footprint.peak <= limit:
        return ""
    total = device.hardware.memory_bytes or 0
    return f"needs about {footprint.peak / 1e9:.3g} GB, has {total / 1e9:.3g} GB"


class DeviceSteps(NamedTuple):
    """Of a device: a mean step of its round, and a supervised one, at the same MFU or none."""

    mean: Step
    supervised: Step


def device_step(spec: JobSpec, method: Workload, device: Candidate, micro: int) -> Step | None:
    """A mean step of a round there, ``micro`` examples at a time; None for an unmeasured device."""
    pace = _pace(spec, method, device, micro)
    return pace and pace.mean


def _pace(spec: JobSpec, method: Workload, device: Candidate, micro: int) -> DeviceSteps | None:
    batch, longest = spec.train.batch_size, device.longest
    parts = -(-batch // micro)
    work = BatchShape(-(-batch // parts), device.source, device.target)
    padded = BatchShape(
        work.examples,
        device.source + PADDED_SHARE * (longest[0] - device.source),
        device.target + PADDED_SHARE * (longest[1] - device.target),
    )
    one = step(method, device.hardware, work, padded, parts * spec.train.accumulation)
    if one is None:
        return None
    course = PpoSchedule.of(spec, steps_of(spec, device), micro)
    mean = COSTS[spec.method.family.training].mean_step(course, method, device, padded, one)
    slower = mean.mfu / device.mfu if device.mfu else 1.0
    return DeviceSteps(mean.slower(slower), one.slower(slower))


def _all_alike(
    course: PpoSchedule, method: Workload, device: Candidate, padded: BatchShape, one: Step
) -> Step:
    del course, method, device, padded
    return one


def _evaluate_s(
    spec: JobSpec, method: Workload, device: Candidate, pace: DeviceSteps | None
) -> float | None:
    """Seconds of one evaluation, and of what the method generates beside it."""
    if pace is None:
        return None
    work = BatchShape(validation_examples(spec, device.examples), device.source, device.target)
    family = spec.method.family
    times = 1 + family.has_personal_lora + COSTS[family.training].generations
    return times * evaluation_s(method, work, pace.supervised)


def _timed(
    plan: DevicePlan, device: Candidate, train_s: float | None, evaluate_s: float | None
) -> DevicePlan:
    seconds: dict[str, float] = {}
    if train_s is not None and evaluate_s is not None:
        seconds |= {"train_s": train_s, "evaluate_s": evaluate_s}
    cost = None
    if device.link is not None:
        seconds["download_s"] = device.link.down_s(plan.bytes_down)
        seconds["upload_s"] = device.link.up_s(plan.bytes_up)
        cost = device.link.cost(plan.bytes_down + plan.bytes_up)
    return replace(plan, seconds=seconds, cost=cost)


def _notes(device: Candidate, one: Step | None, precision: str) -> list[str]:
    """What a reader of the figures should know."""
    hardware = device.hardware
    notes = list(hardware.faults)
    if one is None:
        notes.append(f"no {precision} rate or bandwidth is known; measure the device")
    elif device.mfu:
        notes.append("at the MFU it reached before")
    elif "peak_flops" not in hardware.measured:
        notes.append(f"from the data sheet of {hardware.board}, not measured")
    if hardware.memory_bytes is None:
        notes.append("its memory is not known")
    return notes


@dataclass(frozen=True)
class TrainingCost:
    """What a way of learning costs on a device.

    ``memory``: with as many examples at a time as fit. ``mean_step``: of a round, from the step on
    references. ``generations``: summaries of the validation part that training makes in a round
    that is evaluated, beside those of the evaluation.
    """

    memory: Callable[[JobSpec, Workload, BatchShape, float | None, bool], Memory]
    mean_step: Callable[[PpoSchedule, Workload, Candidate, BatchShape, Step], Step]
    generations: int


COSTS: Mapping[LocalTraining, TrainingCost] = {
    LocalTraining.REFERENCES: TrainingCost(_reference_memory, _all_alike, 0),
    LocalTraining.REWARDS: TrainingCost(sample_memory, mean_step, READINGS),
}

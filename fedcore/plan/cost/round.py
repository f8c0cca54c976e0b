"""One device's part of a round, predicted: memory, time by phase, bytes and joules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from fedcore.architecture.sizes import Architecture
from fedcore.plan.cost.candidate import Candidate, at_once, steps_of, validation_examples
from fedcore.plan.cost.coefficients import PADDED_SHARE
from fedcore.plan.cost.device_plan import DevicePlan
from fedcore.plan.cost.energy import energy
from fedcore.plan.cost.memory import Memory, largest_micro_batch, memory, usable
from fedcore.plan.cost.pfit_round import EVALUATIONS, PpoSchedule, mean_step, sample_memory
from fedcore.plan.cost.step_time import Step, evaluation_s, step
from fedcore.plan.cost.traffic import bytes_down, uplink_chain
from fedcore.plan.cost.workload import BatchShape, Workload
from fedcore.spec.job import JobSpec
from fedcore.spec.options.method import LocalTraining

PRECISIONS = ("fp32", "bf16")


def plan_device(spec: JobSpec, sizes: Architecture, device: Candidate) -> DevicePlan:
    """One device's round of the job, without waiting for others."""
    return plan_devices(spec, sizes, [device])[0]


def plan_devices(
    spec: JobSpec, sizes: Architecture, devices: Sequence[Candidate]
) -> list[DevicePlan]:
    """The same for each of several devices."""
    keys = itertools.product(PRECISIONS, (False, True))
    workloads = {key: Workload.of(spec, sizes, *key) for key in keys}
    plans = []
    for device in devices:
        precision = device.hardware.precision_of(spec.train.precision)
        workload = workloads[precision, device.hardware.accelerator]
        plans.append(_plan(spec, workload, device))
    return plans


def _plan(spec: JobSpec, workload: Workload, device: Candidate) -> DevicePlan:
    source, target = device.longest
    limit = usable(device.hardware.memory_bytes)
    batch = BatchShape(at_once(spec, source + target), source, target)
    footprint = micro_batch_memory(spec, workload, batch, limit, device.hardware.accelerator)
    pair = _steps(spec, workload, device, footprint.examples)
    one = pair and pair.mean
    steps = steps_of(spec, device)
    train_s = None if one is None else steps * one.seconds
    up, down = uplink_chain(spec, workload, device.link, train_s), bytes_down(spec, workload)
    up_bytes = up.payload(workload.update_weights)[1]
    seconds: dict[str, float] = {}
    if train_s is not None and pair is not None:
        examples = validation_examples(spec, device.examples)
        validation = BatchShape(examples, device.source, device.target)
        family = spec.method.family
        generations = 1 + family.has_personal_lora + COSTS[family.training].generations
        evaluate_s = generations * evaluation_s(workload, validation, pair.supervised)
        share = spec.evaluation.share(spec.rounds)  # of the rounds, those that evaluate
        seconds |= {"train_s": train_s, "evaluate_s": share * evaluate_s}
    cost = None
    if device.link is not None:
        seconds["download_s"] = device.link.down_s(down)
        seconds["upload_s"] = device.link.up_s(up_bytes)
        cost = device.link.cost(down + up_bytes)
    return DevicePlan(
        name=device.name,
        why=_misfit(device, footprint),
        precision=workload.precision,
        memory=footprint,
        micro_batch=footprint.examples,
        steps=steps,
        bytes_down=down,
        bytes_down_last=down,
        bytes_up=up_bytes,
        codec=str(up),
        step=one,
        seconds=seconds,
        cost=cost,
        notes=tuple(_notes(device, one, workload.precision)),
    )


def with_download(plan: DevicePlan, device: Candidate, mean: int, last: int) -> DevicePlan:
    """The plan with other bytes to download: the mean over the rounds, and in the last one."""
    plan = replace(plan, bytes_down=mean, bytes_down_last=last)
    if device.link is None:
        return plan
    seconds = {**plan.seconds, "download_s": device.link.down_s(mean)}
    return replace(plan, seconds=seconds, cost=device.link.cost(mean + plan.bytes_up))


def with_waiting(plan: DevicePlan, device: Candidate, round_s: float) -> DevicePlan:
    """The plan in a round that takes ``round_s`` seconds, with waiting time and joules."""
    busy_s = plan.busy_s
    if busy_s is None:
        return plan
    seconds = {**plan.seconds, "wait_s": max(0.0, round_s - busy_s)}
    compute_s = seconds["train_s"] + seconds["evaluate_s"]
    transfer_s = seconds["download_s"] + seconds["upload_s"]
    joules = energy(device.hardware, compute_s, transfer_s, seconds["wait_s"])
    return replace(plan, seconds=seconds, energy=joules)


def micro_batch_memory(
    spec: JobSpec,
    workload: Workload,
    batch: BatchShape,
    limit: float | None,
    accelerator: bool = False,
) -> Memory:
    """Memory of the largest micro-batch of ``batch`` that fits; of one example if none fits."""
    cost = COSTS[spec.method.family.training]
    return cost.memory(spec, workload, batch, limit, accelerator)


def _reference_memory(
    spec: JobSpec,
    workload: Workload,
    batch: BatchShape,
    limit: float | None,
    accelerator: bool,
) -> Memory:
    if spec.train.micro_batch:
        return memory(workload, batch, accelerator)
    return largest_micro_batch(workload, batch, limit, accelerator)


def _misfit(device: Candidate, footprint: Memory) -> str:
    """Why the job does not fit the device; '' if it does."""
    limit = usable(device.hardware.memory_bytes)
    if limit is None or footprint.peak <= limit:
        return ""
    total = device.hardware.memory_bytes or 0
    return f"needs about {footprint.peak / 1e9:.3g} GB, has {total / 1e9:.3g} GB"


class DeviceSteps(NamedTuple):
    """A device's mean step of a round, and a supervised step; both at the MFU it reached before."""

    mean: Step
    supervised: Step


def device_step(
    spec: JobSpec, workload: Workload, device: Candidate, micro_batch: int
) -> Step | None:
    """The device's mean step of a round; None for an unmeasured device."""
    pair = _steps(spec, workload, device, micro_batch)
    return pair and pair.mean


def _steps(
    spec: JobSpec, workload: Workload, device: Candidate, micro_batch: int
) -> DeviceSteps | None:
    batch_size, longest = spec.train.batch_size, device.longest
    parts = -(-batch_size // micro_batch)
    batch = BatchShape(-(-batch_size // parts), device.source, device.target)
    padded = BatchShape(
        batch.examples,
        device.source + PADDED_SHARE * (longest[0] - device.source),
        device.target + PADDED_SHARE * (longest[1] - device.target),
    )
    one = step(workload, device.hardware, batch, padded, parts * spec.train.accumulation)
    if one is None:
        return None
    schedule = PpoSchedule.of(spec, steps_of(spec, device), micro_batch)
    cost = COSTS[spec.method.family.training]
    mean = cost.mean_step(schedule, workload, device, padded, one)
    slower = mean.mfu / device.mfu if device.mfu else 1.0
    return DeviceSteps(mean.slower(slower), one.slower(slower))


def _reference_step(
    schedule: PpoSchedule,
    workload: Workload,
    device: Candidate,
    padded: BatchShape,
    supervised: Step,
) -> Step:
    del schedule, workload, device, padded
    return supervised


def _notes(device: Candidate, one: Step | None, precision: str) -> list[str]:
    """What a reader of the figures should know."""
    hardware = device.hardware
    notes = list(hardware.faults)
    if one is None:
        notes.append(f"no {precision} rate or bandwidth is known; measure the device")
    elif device.mfu:
        notes.append("based on the MFU it reached before")
    elif "peak_flops" not in hardware.measured:
        notes.append(f"from the data sheet of {hardware.board}, not measured")
    if hardware.memory_bytes is None:
        notes.append("its memory is not known")
    return notes


@dataclass(frozen=True)
class TrainingCost:
    """The cost of a kind of local training on a device.

    ``memory``: of the largest micro-batch that fits. ``mean_step``: of a round, from a supervised
    step. ``generations``: how often the training of a round with evaluation generates summaries of
    the validation part, beside the evaluation itself.
    """

    memory: Callable[[JobSpec, Workload, BatchShape, float | None, bool], Memory]
    mean_step: Callable[[PpoSchedule, Workload, Candidate, BatchShape, Step], Step]
    generations: int


COSTS: Mapping[LocalTraining, TrainingCost] = {
    LocalTraining.REFERENCES: TrainingCost(_reference_memory, _reference_step, 0),
    LocalTraining.REWARDS: TrainingCost(sample_memory, mean_step, EVALUATIONS),
}

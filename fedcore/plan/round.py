"""One device's part of a round, before it happens: memory, time by phase, bytes, joules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from fedcore.plan.energy import Energy, energy
from fedcore.plan.flops import Architecture
from fedcore.plan.hardware import Hardware
from fedcore.plan.links import Link
from fedcore.plan.memory import Memory, largest_micro_batch, memory, usable
from fedcore.plan.method import Method, Work
from fedcore.plan.reinforced import READINGS, Course, held_samples, mean_step
from fedcore.plan.steps import Step, evaluation_s, step
from fedcore.plan.traffic import bytes_down, uplink
from fedcore.plan.tuning import PADDED_SHARE
from fedcore.spec import JobSpec
from fedcore.spec_pfit import PFIT
from fedcore.spec_pftt import PFTT

if TYPE_CHECKING:
    from fedcore.plan.fedpipe_choice import Choice

PRECISIONS = ("fp32", "bf16")
# By ``method.name``, where a round is not supervised steps alone.
HELD = {PFIT: held_samples}
MEANS = {PFIT: mean_step}
# Times the validation part is generated in an evaluation, where a method does so more than once:
# PFTT with the device's own model too, PFIT for the rewards before and after its training.
GENERATIONS = {PFTT: 2, PFIT: 1 + READINGS}
PHASES = ("download_s", "train_s", "evaluate_s", "upload_s", "wait_s")


@dataclass(frozen=True)
class Candidate:
    """A device that could take part. ``mfu`` is what it reached before, in its last job.

    ``source`` and ``target`` are tokens of its mean example, ``longest`` of its longest.
    """

    name: str
    hardware: Hardware
    examples: int
    source: float
    target: float
    longest: tuple[float, float]
    link: Link | None = None
    mfu: float | None = None


@dataclass(frozen=True)
class DevicePlan:
    """``why`` says why it does not fit, '' if it does. None where it cannot be known.

    ``bytes_down`` is a mean of the rounds where it grows, ``bytes_down_last`` that of the last one.
    ``planned`` is what FedPipe chose for it, where the job leaves that to FedPipe.
    """

    name: str
    why: str
    precision: str
    memory: Memory
    micro_batch: int
    steps: int
    bytes_down: int
    bytes_down_last: int
    bytes_up: int
    codec: str
    step: Step | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    energy: Energy = field(default_factory=Energy)
    cost: float | None = None
    notes: tuple[str, ...] = ()
    planned: Choice | None = None

    @property
    def fits(self) -> bool:
        return not self.why

    @property
    def step_s(self) -> float | None:
        return self.step.seconds if self.step else None

    @property
    def busy_s(self) -> float | None:
        """A whole round without waiting for others."""
        parts = [self.seconds.get(name) for name in PHASES[:-1]]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    @property
    def granularity(self) -> float | None:
        """Seconds of computing over seconds of transfers; infinite where these take no time."""
        train = self.seconds.get("train_s")
        moved = [self.seconds.get(name) for name in ("download_s", "upload_s")]
        if train is None or None in moved:
            return None
        travelling = sum(part for part in moved if part is not None)
        return train / travelling if travelling > 0 else math.inf


def plan_device(spec: JobSpec, sizes: Architecture, device: Candidate) -> DevicePlan:
    """What a round of the job comes to on one device, waiting left out."""
    return plan_devices(spec, sizes, [device])[0]


def plan_devices(
    spec: JobSpec, sizes: Architecture, devices: Sequence[Candidate]
) -> list[DevicePlan]:
    """The same for each of several devices."""
    ways = itertools.product(PRECISIONS, (False, True))
    methods = {way: Method.of(spec, sizes, *way) for way in ways}
    share = spec.evaluation.share(spec.rounds)
    wanted = spec.train.precision
    used = [methods[d.hardware.precision_of(wanted), d.hardware.accelerator] for d in devices]
    pairs = zip(used, devices, strict=True)
    return [_planned(spec, method, device, share) for method, device in pairs]


def _planned(spec: JobSpec, method: Method, device: Candidate, share: float) -> DevicePlan:
    """``share``: of the rounds, those that evaluate."""
    held = _memory(spec, method, device)
    pace = _pace(spec, method, device, held.examples)
    one = pace and pace.mean
    steps = steps_of(spec, device)
    train_s = None if one is None else steps * one.seconds
    up, down = uplink(spec, method, device.link, train_s), bytes_down(spec, method)
    found = DevicePlan(
        name=device.name,
        why=_why(device, held),
        precision=method.precision,
        memory=held,
        micro_batch=held.examples,
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


def validation_examples(spec: JobSpec, examples: int) -> int:
    wanted = math.ceil(examples * spec.data.validation_fraction)
    return min(spec.data.max_validation_examples, wanted)


def _memory(spec: JobSpec, method: Method, device: Candidate) -> Memory:
    source, target = device.longest
    limit = usable(device.hardware.memory_bytes)
    accelerator = device.hardware.accelerator
    work = Work(at_once(spec, source + target), source, target)
    return held(spec, method, work, limit, accelerator)


def held(
    spec: JobSpec, method: Method, work: Work, limit: float | None, accelerator: bool = False
) -> Memory:
    """Memory with as many of the examples of ``work`` at a time as fit; with one where none do."""
    if other := HELD.get(spec.method.name):
        return other(spec, method, work, limit, accelerator)
    if spec.train.micro_batch:
        return memory(method, work, accelerator)
    return largest_micro_batch(method, work, limit, accelerator)


def at_once(spec: JobSpec, tokens: float) -> int:
    """Examples of a micro-batch at most, as the job says; each has so many tokens."""
    train = spec.train
    most = min(train.batch_size, train.micro_batch or train.batch_size)
    return min(most, max(1, int(train.micro_tokens // tokens))) if train.micro_tokens else most


def _why(device: Candidate, held: Memory) -> str:
    limit = usable(device.hardware.memory_bytes)
    if limit is None or held.peak <= limit:
        return ""
    total = device.hardware.memory_bytes or 0
    return f"needs about {held.peak / 1e9:.3g} GB, has {total / 1e9:.3g} GB"


class Pace(NamedTuple):
    """Of a device: a mean step of its round, and a supervised one, at the same MFU or none."""

    mean: Step
    supervised: Step


def device_step(spec: JobSpec, method: Method, device: Candidate, micro: int) -> Step | None:
    """A mean step of a round there, ``micro`` examples at a time; None for an unmeasured device."""
    pace = _pace(spec, method, device, micro)
    return pace and pace.mean


def _pace(spec: JobSpec, method: Method, device: Candidate, micro: int) -> Pace | None:
    batch, longest = spec.train.batch_size, device.longest
    parts = -(-batch // micro)
    work = Work(-(-batch // parts), device.source, device.target)
    padded = Work(
        work.examples,
        device.source + PADDED_SHARE * (longest[0] - device.source),
        device.target + PADDED_SHARE * (longest[1] - device.target),
    )
    one = step(method, device.hardware, work, padded, parts * spec.train.accumulation)
    if one is None:
        return None
    course = Course.of(spec, steps_of(spec, device), micro)
    mean = MEANS.get(spec.method.name, _all_alike)(course, method, device, padded, one)
    slower = mean.mfu / device.mfu if device.mfu else 1.0
    return Pace(mean.slower(slower), one.slower(slower))


def _all_alike(course: Course, method: Method, device: Candidate, padded: Work, one: Step) -> Step:
    del course, method, device, padded
    return one


def steps_of(spec: JobSpec, device: Candidate) -> int:
    """Optimizer steps of a round."""
    training = max(1, device.examples - validation_examples(spec, device.examples))
    batches = -(-training // spec.train.batch_size)
    per_epoch = -(-batches // spec.train.accumulation)
    return spec.train.local_steps or spec.train.local_epochs * per_epoch


def _evaluate_s(
    spec: JobSpec, method: Method, device: Candidate, pace: Pace | None
) -> float | None:
    """Seconds of one evaluation, and of what the method generates beside it."""
    if pace is None:
        return None
    work = Work(validation_examples(spec, device.examples), device.source, device.target)
    return GENERATIONS.get(spec.method.name, 1) * evaluation_s(method, work, pace.supervised)


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

"""What a job would cost before it is launched: who fits, bytes, time. Assumptions are named.

Nothing here decides who takes part; the coordinator does, by the same rules of data and role.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedcore.plan.clock import version_s
from fedcore.plan.flops import (
    FP32_BYTES,
    Architecture,
    StepCost,
    architecture_of,
    full_cost,
    lora_cost,
    payload_bytes,
)
from fedcore.plan.wire_chain import PLAIN
from fedcore.sampling import needed
from fedcore.spec import JobSpec
from webapp.devices.listing import best_peak, link_bps, memory_of, peaks_of
from webapp.devices.models import Dataset, Device, DeviceRole
from webapp.jobs.models import Assignment
from webapp.telemetry import units

ASSUMED_MFU = 0.3
ASSUMED_LINK_BPS = 5e6
BYTES_PER_TOKEN = 4.0
# A generated token costs a pass over the decoder that keeps the hardware less busy than training.
GENERATION_SLOWDOWN = 4.0
MEMORY_SHARE = 0.9


@dataclass(frozen=True)
class Part:
    """One device's part. ``why`` says why it does not fit, '' if it does."""

    name: str
    why: str
    note: str = ""
    dataset: str = ""
    examples: int = 0
    seconds: float | None = None

    @property
    def fits(self) -> bool:
        return not self.why


@dataclass(frozen=True)
class Estimate:
    """``None`` where it cannot be known without the model's sizes or a measured device.

    ``payload`` is what trains, in fp32; ``device_bytes`` what a device moves in a round, both ways.
    """

    parts: tuple[Part, ...]
    per_round: int
    payload: int | None
    device_bytes: int | None
    parameters: int | None
    trainable: int | None
    round_s: float | None
    rounds: int
    assumed: tuple[str, ...]

    @property
    def fitting(self) -> list[Part]:
        return [part for part in self.parts if part.fits]

    @property
    def left_out(self) -> list[Part]:
        return [part for part in self.parts if not part.fits]

    @property
    def total_bytes(self) -> int | None:
        each = self.device_bytes
        return None if each is None else each * self.per_round * self.rounds

    @property
    def total_s(self) -> float | None:
        return None if self.round_s is None else self.round_s * self.rounds


@dataclass(frozen=True)
class Plan:
    """What depends on the specification alone."""

    spec: JobSpec
    sizes: Architecture
    cost: StepCost
    payload: int
    needs_bytes: float

    @classmethod
    def of(cls, spec: JobSpec) -> Plan | None:
        """None where the model's sizes are not known here."""
        sizes = architecture_of(spec.model.name)
        if sizes is None:
            return None
        adapter = spec.adapter
        payload = payload_bytes(sizes, adapter.kind, adapter.rank, adapter.targets)
        return cls(spec, sizes, _cost(spec, sizes), payload, memory_bytes(spec, sizes))

    @property
    def moved(self) -> int:
        """Bytes both ways under the job's codecs: an update up, a model or a step down."""
        wire, numbers = self.spec.wire, self.payload // FP32_BYTES
        ways = (wire.chain or PLAIN, wire.step_chain or PLAIN)
        return sum(chain.payload(numbers)[1] for chain in ways)

    @property
    def trainable(self) -> int:
        full = self.spec.adapter.kind == "full"
        return self.sizes.parameters() if full else self.payload // FP32_BYTES


def estimate(spec: JobSpec, devices: Sequence[Device], last: Mapping[int, Assignment]) -> Estimate:
    """``devices`` with their datasets read; ``last``: their newest delivered training."""
    plan = Plan.of(spec)
    named = set(spec.participation.devices)
    asked = [device for device in devices if not named or device.name in named]
    parts = tuple(_part(spec, plan, device, last.get(device.pk)) for device in asked)
    fitting = [part for part in parts if part.fits]
    times = [part.seconds for part in fitting if part.seconds is not None]
    return Estimate(
        parts=parts,
        per_round=_updates(spec, len(fitting)),
        payload=plan.payload if plan else None,
        device_bytes=plan.moved if plan else None,
        parameters=plan.sizes.parameters() if plan else None,
        trainable=plan.trainable if plan else None,
        round_s=_round_s(spec, times),
        rounds=spec.rounds,
        assumed=_assumed(spec, plan, fitting, last, asked),
    )


def _updates(spec: JobSpec, devices: int) -> int:
    """Updates that make a model."""
    together = needed(devices, spec.participation)
    return (
        min(spec.participation.buffer_size, together) if spec.participation.buffered else together
    )


def _round_s(spec: JobSpec, times: Sequence[float]) -> float | None:
    """A synchronous round takes as long as its slowest device; a buffer waits for nobody."""
    if not times:
        return None
    if not spec.participation.buffered:
        return max(times)
    together = needed(len(times), spec.participation)
    return version_s(times, _updates(spec, len(times)), together)


def _part(spec: JobSpec, plan: Plan | None, device: Device, last: Assignment | None) -> Part:
    held = _dataset(spec, device)
    why = _why_not(spec, device, held)
    if why or held is None:
        return Part(device.name, why)
    short = _too_small(plan, device) if plan else ""
    note = "" if device.is_online else device.presence
    seconds = _seconds(plan, device, last, held) if plan else None
    return Part(device.name, short, note, held.name, held.examples, seconds)


def _dataset(spec: JobSpec, device: Device) -> Dataset | None:
    """The one the coordinator would choose: the first that is large enough, else the first."""
    name, least = spec.data.dataset, spec.data.min_examples
    held = [item for item in device.datasets.all() if not name or item.name == name]
    return next((item for item in held if item.examples >= least), held[0] if held else None)


def _why_not(spec: JobSpec, device: Device, held: Dataset | None) -> str:
    if device.role == DeviceRole.AGGREGATOR:
        return "only aggregates"
    if held is None:
        return f"holds no dataset {spec.data.dataset!r}" if spec.data.dataset else "holds no data"
    if held.examples < spec.data.min_examples:
        return f"{held.name} has {held.examples} of {spec.data.min_examples} examples"
    return ""


def _too_small(plan: Plan, device: Device) -> str:
    memory = memory_of(device.profile)
    if not memory or plan.needs_bytes <= MEMORY_SHARE * memory:
        return ""
    return f"needs about {units.size(plan.needs_bytes)}, has {units.size(memory)}"


def memory_bytes(spec: JobSpec, sizes: Architecture) -> float:
    """Weights, gradients and two moments in fp32, and what the backward pass must remember."""
    base = sizes.parameters()
    trained = base
    if spec.adapter.kind == "lora":
        trained = sizes.lora_parameters(spec.adapter.rank, spec.adapter.targets)
    s, t = spec.data.max_source_tokens, spec.data.max_target_tokens
    tokens = s * sizes.encoder_layers + 2 * t * sizes.decoder_layers
    width = 8 * sizes.d_model + 3 * sizes.d_ff
    scores = sizes.heads * (s * s * sizes.encoder_layers + (t * t + s * t) * sizes.decoder_layers)
    kept = spec.train.batch_size * (tokens * width + 2 * scores + 2 * t * sizes.vocab)
    return FP32_BYTES * (base + 3 * trained + kept)


def _cost(spec: JobSpec, sizes: Architecture) -> StepCost:
    if spec.adapter.kind == "full":
        return full_cost(sizes)
    return lora_cost(sizes, spec.adapter.rank, spec.adapter.targets)


def _seconds(plan: Plan, device: Device, last: Assignment | None, held: Dataset) -> float | None:
    """One round on this device: train, evaluate where that is due, both ways over the link."""
    spec, cost = plan.spec, plan.cost
    peak, _ = _peak(spec, device)
    if not peak:
        return None
    figures = last.metrics if last else {}
    speed = peak * (units.number(figures.get("mfu")) or ASSUMED_MFU)
    lengths = _lengths(spec, held)
    validation = min(
        spec.data.max_validation_examples, math.ceil(held.examples * spec.data.validation_fraction)
    )
    batch = spec.train.batch_size * spec.train.accumulation
    training = max(1, held.examples - validation)
    steps = spec.train.local_steps or math.ceil(training / batch) * spec.train.local_epochs
    trained = cost.training.of([lengths]) * min(steps * batch, training * _epochs(spec, steps))
    scored = cost.forward.of([lengths]) * validation * GENERATION_SLOWDOWN
    scored *= spec.evaluation.share(spec.rounds)
    link = (last and link_bps(figures, last.bytes_down)) or ASSUMED_LINK_BPS
    return (trained + scored) / speed + plan.moved / link


def _epochs(spec: JobSpec, steps: int) -> int:
    return steps if spec.train.local_steps else spec.train.local_epochs


def _lengths(spec: JobSpec, held: Dataset) -> tuple[int, int]:
    """Source and target tokens of a typical example, from the data's bytes where known."""
    s, t = spec.data.max_source_tokens, spec.data.max_target_tokens
    if not held.size_bytes or not held.examples:
        return s, t
    tokens = held.size_bytes / held.examples / BYTES_PER_TOKEN
    return min(s, max(8, round(0.85 * tokens))), min(t, max(4, round(0.15 * tokens)))


def _peak(spec: JobSpec, device: Device) -> tuple[float | None, str]:
    peaks, wanted = peaks_of(device.profile), spec.train.precision
    if wanted in peaks:
        return peaks[wanted], wanted
    return best_peak(device.profile)


def _assumed(
    spec: JobSpec,
    plan: Plan | None,
    fitting: Sequence[Part],
    last: Mapping[int, Assignment],
    devices: Sequence[Device],
) -> tuple[str, ...]:
    if plan is None:
        return (f"the sizes of {spec.model.name} are not known here, so bytes and time are not",)
    names = {part.name for part in fitting}
    fresh = [d.name for d in devices if d.name in names and d.pk not in last]
    notes = []
    if fresh:
        mfu, link = units.percent(ASSUMED_MFU), units.si(ASSUMED_LINK_BPS, "B/s")
        notes.append(f"MFU of {mfu} and a link of {link} where a device has not trained yet")
    unmeasured = [part.name for part in fitting if part.seconds is None]
    if unmeasured:
        notes.append(f"no measured peak: {', '.join(unmeasured[:5])}")
    if spec.wire.chain is None:
        notes.append("updates travel as fp32; on a slow link auto sends fewer bytes")
    return tuple(notes)

"""A whole job before it is launched: each device's round, the slowest of them, and what would help.

Every change that is offered is planned anew with the changed job or link; nothing is guessed from a
rule of thumb.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedcore.architecture.sizes import Architecture
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.round import with_waiting
from fedcore.plan.device_plan import DevicePlan
from fedcore.plan.per_device import devices_as_given
from fedcore.plan.suggestions import CHANGES, Change
from fedcore.rounds.durations import version_s
from fedcore.rounds.sampling import devices_needed
from fedcore.spec.job import JobSpec

LARGE = 24  # devices; of more, each change is tried on those that matter
LEAST_GAIN = 0.02  # a change that saves less than this share of a round is not worth telling


@dataclass(frozen=True)
class Improvement:
    """A change, and what a round comes to with it."""

    change: Change
    round_s: float | None
    fitting: int
    saved: float

    @property
    def rank(self) -> tuple[int, float, int]:
        """Devices count most, then the share of a round saved (less for what costs quality)."""
        price = self.change.price
        return self.fitting, self.saved / (1 + price), -price


@dataclass(frozen=True)
class FleetPlan:
    """``round_s``: of a synchronous round its slowest device's; of a buffer, between two models.

    ``best`` is the change that would help most, where ``advised`` says that some were tried.
    """

    devices: tuple[DevicePlan, ...]
    rounds: int
    updates: int
    round_s: float | None
    slowest: str
    best: Improvement | None = None
    advised: bool = False

    @property
    def fitting(self) -> tuple[DevicePlan, ...]:
        return tuple(device for device in self.devices if device.fits)

    @property
    def total_s(self) -> float | None:
        return None if self.round_s is None else self.rounds * self.round_s

    @property
    def total_bytes(self) -> int | None:
        """Both ways, of all devices over all rounds; None where nobody fits."""
        moved = [device.bytes_down + device.bytes_up for device in self.fitting]
        return round(self.rounds * self.updates * sum(moved) / len(moved)) if moved else None

    @property
    def total_j(self) -> float | None:
        """Of all fitting devices over all rounds; None where one device's watts are not known."""
        joules = [device.energy.total_j for device in self.fitting]
        known = [value for value in joules if value is not None]
        return self.rounds * sum(known) if joules and len(known) == len(joules) else None


def plan_fleet(
    spec: JobSpec, sizes: Architecture, devices: Sequence[Candidate], advise: bool = True
) -> FleetPlan:
    """Plan every device's round, then try each change; ``advise=False`` leaves these out.

    Under FedPipe none is tried: its plans have weighed most of them already.
    """
    plans = devices_as_given(spec, sizes, devices)
    busy = {plan.name: plan.busy_s for plan in plans if plan.fits}
    times = {name: seconds for name, seconds in busy.items() if seconds is not None}
    updates = updates_of(spec, len(busy))
    round_s = _round_s(spec, list(times.values()), updates)
    slowest = max(times, key=lambda name: times[name]) if times else ""
    if not spec.participation.buffered and round_s is not None:
        pairs = zip(plans, devices, strict=True)
        plans = [with_waiting(plan, device, round_s) for plan, device in pairs]
    elif round_s is not None:
        pairs = zip(plans, devices, strict=True)
        plans = [with_waiting(plan, device, plan.busy_s or 0.0) for plan, device in pairs]
    found = FleetPlan(tuple(plans), spec.rounds, updates, round_s, slowest)
    if not advise or spec.method.family.plans_each_device:
        return found
    return replace(_advised(found, spec, sizes, devices), advised=True)


def updates_of(spec: JobSpec, devices: int) -> int:
    """Updates that make a model."""
    together = devices_needed(devices, spec.participation)
    if not spec.participation.buffered:
        return together
    return min(spec.participation.buffer_size, together)


def _round_s(spec: JobSpec, times: Sequence[float], updates: int) -> float | None:
    """A synchronous round takes as long as its slowest device; a buffer waits for nobody."""
    if not times:
        return None
    if not spec.participation.buffered:
        return max(times)
    return version_s(times, updates, devices_needed(len(times), spec.participation))


def _advised(
    plan: FleetPlan, spec: JobSpec, sizes: Architecture, devices: Sequence[Candidate]
) -> FleetPlan:
    """The plan with the best change; of a large fleet each is tried on those it matters to."""
    some = _telling(plan, devices)
    before = plan if len(some) == len(devices) else plan_fleet(spec, sizes, some, advise=False)
    gains = [gain for change in CHANGES if (gain := _gain(before, change, spec, sizes, some))]
    best = max(gains, key=lambda gain: gain.rank, default=None)
    if best is not None and before is not plan:
        best = _gain(plan, best.change, spec, sizes, devices)
    return replace(plan, best=best)


def _telling(plan: FleetPlan, devices: Sequence[Candidate]) -> Sequence[Candidate]:
    """The devices that decide how long a round lasts, and some that do not fit."""
    if len(devices) <= LARGE:
        return devices
    pairs = list(zip(plan.devices, devices, strict=True))
    slow = sorted(pairs, key=lambda pair: -(pair[0].busy_s or 0.0) if pair[0].fits else 1.0)
    small = [device for row, device in pairs if not row.fits]
    return [device for row, device in slow[: LARGE // 2] if row.fits] + small[: LARGE // 2]


def _gain(
    plan: FleetPlan,
    change: Change,
    spec: JobSpec,
    sizes: Architecture,
    devices: Sequence[Candidate],
) -> Improvement | None:
    """What a change would bring; None where it changes nothing or does not help."""
    changed = change.apply(spec, devices)
    if changed is None:
        return None
    after = plan_fleet(changed[0], sizes, changed[1], advise=False)
    more = len(after.fitting) - len(plan.fitting)
    saved = 0.0
    if plan.round_s and after.round_s is not None and more <= 0:
        saved = 1 - after.round_s / plan.round_s
    if more < 0 or (more == 0 and saved < LEAST_GAIN):
        return None
    return Improvement(change, after.round_s, len(after.fitting), saved)

"""A whole job before its launch: each device's round, the slowest device, and what would help.

Every suggested change is planned again with the changed job or link, never by a rule of thumb.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedcore.architecture.sizes import Architecture
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.device_plan import DevicePlan
from fedcore.plan.cost.round import with_waiting
from fedcore.plan.per_device import plan_each_device
from fedcore.plan.suggestions import CHANGES, Change
from fedcore.rounds.durations import version_s
from fedcore.rounds.sampling import devices_needed
from fedcore.spec.job import JobSpec

LARGE = 24  # devices; in a larger fleet changes are tried on those that matter
LEAST_SAVING = 0.02  # a change must save at least this share of a round


@dataclass(frozen=True)
class Improvement:
    """A change and its effect: the round's seconds, the devices that fit, the share saved."""

    change: Change
    round_s: float | None
    fitting: int
    saved: float

    @property
    def rank(self) -> tuple[int, float, int]:
        """Sort key: devices that fit first, then the share saved, reduced by the change's price."""
        price = self.change.price
        return self.fitting, self.saved / (1 + price), -price


@dataclass(frozen=True)
class FleetPlan:
    """``round_s``: seconds of the slowest device, or between two models of an asynchronous job.

    ``best``: the change that helps most; ``advised``: whether changes were tried.
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
        """Both ways, all devices, all rounds; None if no device fits."""
        moved = [device.bytes_down + device.bytes_up for device in self.fitting]
        return round(self.rounds * self.updates * sum(moved) / len(moved)) if moved else None

    @property
    def total_j(self) -> float | None:
        """All fitting devices, all rounds; None if the power of one device is not known."""
        joules = [device.energy.total_j for device in self.fitting]
        known = [value for value in joules if value is not None]
        return self.rounds * sum(known) if joules and len(known) == len(joules) else None


def plan_fleet(
    spec: JobSpec, sizes: Architecture, devices: Sequence[Candidate], advise: bool = True
) -> FleetPlan:
    """Plan every device's round; with ``advise`` also try each change.

    No change is tried under FedPipe, whose allocation has weighed most of them already.
    """
    plans = plan_each_device(spec, sizes, devices)
    busy = {plan.name: plan.busy_s for plan in plans if plan.fits}
    times = {name: seconds for name, seconds in busy.items() if seconds is not None}
    updates = updates_of(spec, len(busy))
    slowest = max(times, key=lambda name: times[name]) if times else ""
    round_s = times.get(slowest)
    if times and spec.participation.buffered:
        together = devices_needed(len(times), spec.participation)
        round_s = version_s(list(times.values()), updates, together)
    if round_s is not None:
        waits = not spec.participation.buffered
        plans = [
            with_waiting(plan, device, round_s if waits else plan.busy_s or 0.0)
            for plan, device in zip(plans, devices, strict=True)
        ]
    plan = FleetPlan(tuple(plans), spec.rounds, updates, round_s, slowest)
    if not advise or spec.method.family.plans_each_device:
        return plan
    best = _best_improvement(plan, spec, sizes, devices)
    return replace(plan, best=best, advised=True)


def updates_of(spec: JobSpec, devices: int) -> int:
    """Number of updates that make a model."""
    together = devices_needed(devices, spec.participation)
    if not spec.participation.buffered:
        return together
    return min(spec.participation.buffer_size, together)


def _best_improvement(
    plan: FleetPlan, spec: JobSpec, sizes: Architecture, devices: Sequence[Candidate]
) -> Improvement | None:
    """The best change; in a large fleet each is tried on the devices that matter."""
    deciding, before = devices, plan
    if len(devices) > LARGE:
        # The slowest devices, which decide how long a round takes, and some that do not fit.
        pairs = list(zip(plan.devices, devices, strict=True))
        slow = sorted(pairs, key=lambda pair: -(pair[0].busy_s or 0.0) if pair[0].fits else 1.0)
        small = [device for row, device in pairs if not row.fits]
        slowest = [device for row, device in slow[: LARGE // 2] if row.fits]
        deciding = slowest + small[: LARGE // 2]
        before = plan_fleet(spec, sizes, deciding, advise=False)
    tried = [_improvement(before, change, spec, sizes, deciding) for change in CHANGES]
    improvements = [item for item in tried if item is not None]
    best = max(improvements, key=lambda item: item.rank, default=None)
    if best is not None and before is not plan:
        best = _improvement(plan, best.change, spec, sizes, devices)
    return best


def _improvement(
    plan: FleetPlan,
    change: Change,
    spec: JobSpec,
    sizes: Architecture,
    devices: Sequence[Candidate],
) -> Improvement | None:
    """The effect of a change; None if it changes nothing or does not help."""
    changed = change.apply(spec, devices)
    if changed is None:
        return None
    after = plan_fleet(changed[0], sizes, changed[1], advise=False)
    more = len(after.fitting) - len(plan.fitting)
    saved = 0.0
    if plan.round_s and after.round_s is not None and more <= 0:
        saved = 1 - after.round_s / plan.round_s
    if more < 0 or (more == 0 and saved < LEAST_SAVING):
        return None
    return Improvement(change, after.round_s, len(after.fitting), saved)

"""A federation in this process: the server's own decisions, real training, and a virtual clock.

``fedcore.rounds`` decides, as it does for a launched job; this module only says when what happens.
Each device's round takes the time that its profile gives it (``fedcore.hardware.virtual_device``),
by a clock that jumps from one event to the next; training itself runs when its update is folded, so
what is revoked costs nothing here. Evaluation is an observer: it takes no virtual time.

The same specification, selection, session and fold as a launched job, in the same order: for equal
seeds, fp32, one thread and ``deterministic`` the global weights of synchronous rounds are the same
bytes. In an asynchronous job the order of arrival is the virtual clock's.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fedcore.aggregation.strategies import Strategy
from fedcore.errors import EdgewiseError
from fedcore.hardware.virtual_device import Machine
from fedcore.rounds import durations
from fedcore.rounds.buffered import Window, step_buffered
from fedcore.rounds.queries import unfolded_updates
from fedcore.rounds.round_policy import round_policy, version_policy
from fedcore.rounds.sampling import select
from fedcore.rounds.synchronous import step
from fedcore.rounds.types import (
    ACTIVE,
    ENDED,
    Aggregated,
    AssignmentPhase,
    Offer,
    RoundEvent,
    RoundPhase,
    RoundState,
    Tick,
)
from fedcore.simulate.results import (
    MEASURES,
    OnEvent,
    RoundResult,
    SimulationEvent,
    global_file,
    weighted_mean,
)
from fedcore.simulate.round_runner import (
    AggregatedRound,
    RoundRunner,
    ScheduledUpdate,
    refuse_unsuitable,
)
from fedcore.spec.job import JobSpec
from fedcore.spec.local_baseline import Seat, alone_spec
from fedcore.train.datasets import Source
from fedcore.train.telemetry import Hooks

__all__ = [
    "MEASURES",
    "OnEvent",
    "RoundResult",
    "SimulationEvent",
    "global_file",
    "simulate",
    "simulate_alone",
    "weighted_mean",
]

# When an update arrives by the virtual clock, a tie-break, its round, device, attempt and duration.
Arrival = tuple[float, int, int, str, int, float]


def simulate(
    spec: JobSpec,
    devices: Mapping[str, Source],
    workdir: Path | str,
    on_event: OnEvent | None = None,
    hooks: Hooks | None = None,
    fleet: Mapping[str, Machine] | None = None,
    strategy: Strategy | None = None,
) -> list[RoundResult]:
    """Run every round of a job. ``workdir`` keeps ``global-ROUND.safetensors`` of each.

    A device's slot is its place among all names, sorted. Devices that ``fleet`` does not name take
    no time at all. ``strategy`` replaces the server's half of the job's strategy (filters,
    reweighting, fold and server optimizers); what devices minimise and measure remains that of
    ``spec.strategy``. Raises SpecError for a strategy that does not suit the job.
    """
    if strategy:
        refuse_unsuitable(spec, strategy)
    report = on_event or _ignore
    workshop = RoundRunner(
        spec, devices, Path(workdir), report, hooks or Hooks(), strategy=strategy
    )
    return _Federation(spec, workshop, fleet or {}, report).run()


def simulate_alone(
    spec: JobSpec, name: str, data: Source, seat: Seat, workdir: Path | str
) -> list[RoundResult]:
    """The rounds of a job as one of its devices runs it alone (``fedcore.spec.local_baseline``)."""
    mine = alone_spec(spec, name)
    workshop = RoundRunner(mine, {name: data}, Path(workdir), _ignore, Hooks(), {name: seat})
    return _Federation(mine, workshop, {}, _ignore).run()


def _ignore(event: SimulationEvent) -> None:
    del event


class _Federation:
    def __init__(
        self, spec: JobSpec, workshop: RoundRunner, fleet: Mapping[str, Machine], on_event: OnEvent
    ) -> None:
        self.spec, self.workshop, self.fleet, self.on_event = spec, workshop, fleet, on_event
        self.now = 0.0
        self.rounds: list[RoundState] = []  # from number 1 on
        self.arrivals: list[Arrival] = []
        self.history: list[tuple[str, float]] = []  # devices' rounds, the newest first
        self.offers = self.bytes_down = 0

    def run(self) -> list[RoundResult]:
        began = time.perf_counter()
        results = [self._result(0, self.workshop.begin(), None, (), began)]
        self.workshop.plan()
        for number in range(1, self.spec.rounds + 1):
            results.append(self._round(number))
        return results

    def _round(self, number: int) -> RoundResult:
        began, self.bytes_down = time.perf_counter(), 0
        self.rounds.append(self._planned(number))
        self._apply(Tick(self.now, frozenset(self.workshop.names)))
        made, pieces = None, []
        while self.rounds[-1].phase not in ENDED:
            if self.rounds[-1].phase is RoundPhase.AGGREGATING:
                pieces = self._pieces()
                made = self.workshop.make(number, pieces)
                self._apply(Aggregated(self.now))
            else:
                self._wait()
        if made is None:
            raise EdgewiseError(f"round {number} failed: {self.rounds[-1].reason}")
        stale = tuple(number - piece.base for piece in pieces)
        sha256 = made.report.global_frame.sha256
        return self._result(number, sha256, made, stale, began)

    def _planned(self, number: int) -> RoundState:
        names, part = self.workshop.names, self.spec.participation
        if part.buffered:
            policy = version_policy(self.spec, number, len(names))
            return RoundState(number, tuple(names), (), policy)
        predicted = durations.predict(self.history)
        chosen = select(names, part, self.spec.seed, number, predicted)
        return RoundState(number, chosen.members, (), round_policy(part, chosen, predicted))

    def _wait(self) -> None:
        """Let the clock jump to the next arrival, or to the deadline where that comes first."""
        deadline = self.rounds[-1].deadline_at
        assert deadline is not None, "a wait without a deadline"
        if self.arrivals and self.arrivals[0][0] < deadline:
            at, _, number, device, attempt, took = heapq.heappop(self.arrivals)
            if not self._change(number, device, attempt, AssignmentPhase.REPORTED):
                return  # it was revoked meanwhile
            self.now = at
            self.history.insert(0, (device, took))
        else:
            self.now = max(self.now, deadline)
        self._apply(Tick(self.now, frozenset(self.workshop.names)))

    def _apply(self, event: RoundEvent) -> None:
        if self.spec.participation.buffered:
            stepped = step_buffered(self._window(), event)
        else:
            stepped = (step(self.rounds[-1], event),)
        for after, _ in stepped:
            self.rounds[after.number - 1] = after
        for after, effects in stepped:
            for effect in effects:
                if isinstance(effect, Offer):
                    self._begin(after.number, effect.device, effect.attempt)

    def _window(self) -> Window:
        *former, current = self.rounds
        limit = self.spec.participation.max_staleness + 2
        return (*(item for item in former[-limit:] if _is_open(item)), current)

    def _begin(self, number: int, device: str, attempt: int) -> None:
        """A device takes its offer at once and is done when its profile says so."""
        self._change(number, device, attempt, AssignmentPhase.TRAINING)
        down = self.workshop.down_bytes(number)
        machine = self.fleet.get(device, Machine())
        took = machine.round_s(self.workshop.steps(device), down, self.workshop.up_bytes(device))
        self.bytes_down += down
        self.offers += 1
        arrival = (self.now + took, self.offers, number, device, attempt, took)
        heapq.heappush(self.arrivals, arrival)

    def _change(self, number: int, device: str, attempt: int, phase: AssignmentPhase) -> bool:
        """Do what a device does to its assignment; False where it is over already."""
        before = self.rounds[number - 1]
        key = (device, attempt)
        found = next(item for item in before.assignments if (item.device, item.attempt) == key)
        if found.phase not in ACTIVE:
            return False
        changed = replace(found, phase=phase, lease_until=math.inf)
        items = tuple(changed if item is found else item for item in before.assignments)
        self.rounds[number - 1] = replace(before, assignments=items)
        return True

    def _pieces(self) -> list[ScheduledUpdate]:
        """The updates that the newest round folds, in the order of the sum."""
        slots = self.workshop.slots
        part, number = self.spec.participation, self.rounds[-1].number
        if not part.buffered:
            found = unfolded_updates(self.rounds[-1])
            return [ScheduledUpdate(item.device, slots[item.device], number) for item in found]
        held = [
            (each.number, item)
            for each in self._window()
            for item in unfolded_updates(each)
            if item.buffered_in == number
        ]
        return [
            ScheduledUpdate(
                item.device,
                slots[item.device],
                base,
                place,
                item.attempt - 1,
                part.discount(number - base),
            )
            for place, (base, item) in enumerate(held)
        ]

    def _result(
        self,
        number: int,
        sha256: str,
        made: AggregatedRound | None,
        stale: tuple[int, ...],
        began: float,
    ) -> RoundResult:
        found = self.workshop.evaluate(number)
        result = RoundResult(
            number=number,
            sha256=sha256,
            evaluations=found,
            mean=weighted_mean(list(found.values())) if found else {},
            training=made.training if made else {},
            measured=made.measured if made else {},
            fold=made.report if made else None,
            bytes_up=made.bytes_up if made else 0,
            bytes_down=self.bytes_down,
            seconds=time.perf_counter() - began,
            virtual_s=self.now,
            staleness=stale,
            levels=made.levels if made else (),
        )
        self.on_event(SimulationEvent("round", number, "", result))
        return result


def _is_open(item: RoundState) -> bool:
    open_ = (*ACTIVE, AssignmentPhase.REPORTED)
    return any(part.phase in open_ for part in item.assignments)

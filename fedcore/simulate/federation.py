"""A federation in one process: real decisions, real training, and a virtual clock.

``fedcore.rounds`` decides as in a launched job; this module is the clock. A device's round takes
the time of its profile (``fedcore.hardware.virtual_device``), and the clock jumps from one event to
the next. Training runs when its update is folded, so revoked work costs nothing. Evaluation takes
no virtual time.

Specification, selection, session and aggregation are those of a launched job, in the same order.
With equal seeds, fp32, one thread and ``deterministic`` the global weights of synchronous rounds
are the same bytes. In asynchronous jobs the virtual clock gives the order of arrival.
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
    OnEvent,
    RoundResult,
    SimulationEvent,
    ignore,
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

# Virtual time of arrival, a tie-break, round, device, attempt, duration in seconds.
Arrival = tuple[float, int, int, str, int, float]


def simulate(
    spec: JobSpec,
    devices: Mapping[str, Source],
    workdir: Path | str,
    on_event: OnEvent | None = None,
    fleet: Mapping[str, Machine] | None = None,
    strategy: Strategy | None = None,
) -> list[RoundResult]:
    """Run every round of a job; ``workdir`` gets ``global-ROUND.safetensors`` of each.

    A device's slot is its place in the sorted names. ``fleet``: speed and link of devices; those it
    does not name take no time. ``strategy`` replaces the server's half of the job's strategy
    (filters, reweighting, fold and server optimizers); devices still minimise and measure what
    ``spec.strategy`` says. Raises SpecError for a strategy that does not suit the job.
    """
    if strategy:
        refuse_unsuitable(spec, strategy)
    report = on_event or ignore
    runner = RoundRunner(spec, devices, Path(workdir), report, strategy=strategy)
    return _Federation(spec, runner, fleet or {}, report).run()


def simulate_baseline(
    spec: JobSpec, name: str, data: Source, seat: Seat, workdir: Path | str
) -> list[RoundResult]:
    """The local-only baseline of one device of a job (``fedcore.spec.local_baseline``)."""
    baseline = alone_spec(spec, name)
    runner = RoundRunner(baseline, {name: data}, Path(workdir), ignore, {name: seat})
    return _Federation(baseline, runner, {}, ignore).run()


class _Federation:
    def __init__(
        self, spec: JobSpec, runner: RoundRunner, fleet: Mapping[str, Machine], on_event: OnEvent
    ) -> None:
        self.spec, self.runner, self.fleet, self.on_event = spec, runner, fleet, on_event
        self.now = 0.0
        self.rounds: list[RoundState] = []  # from number 1 on
        self.arrivals: list[Arrival] = []
        self.history: list[tuple[str, float]] = []  # devices and durations, newest first
        self.offers = self.bytes_down = 0

    def run(self) -> list[RoundResult]:
        began = time.perf_counter()
        results = [self._result(0, self.runner.begin(), None, (), began)]
        self.runner.plan()
        for number in range(1, self.spec.rounds + 1):
            results.append(self._run_round(number))
        return results

    def _run_round(self, number: int) -> RoundResult:
        began, self.bytes_down = time.perf_counter(), 0
        names, part = self.runner.names, self.spec.participation
        if part.buffered:
            members, policy = tuple(names), version_policy(self.spec, number, len(names))
        else:
            predicted = durations.predict(self.history)
            selection = select(names, part, self.spec.seed, number, predicted)
            members, policy = selection.members, round_policy(part, selection, predicted)
        self.rounds.append(RoundState(number, members, (), policy))
        self._apply(Tick(self.now, frozenset(self.runner.names)))
        aggregated, scheduled = None, []
        while self.rounds[-1].phase not in ENDED:
            if self.rounds[-1].phase is RoundPhase.AGGREGATING:
                scheduled = self._scheduled_updates()
                aggregated = self.runner.aggregate(number, scheduled)
                self._apply(Aggregated(self.now))
            else:
                self._wait()
        if aggregated is None:
            raise EdgewiseError(f"round {number} failed: {self.rounds[-1].reason}")
        staleness = tuple(number - item.base for item in scheduled)
        sha256 = aggregated.report.global_frame.sha256
        return self._result(number, sha256, aggregated, staleness, began)

    def _wait(self) -> None:
        """Advance the clock to the next arrival or the deadline, whichever is first."""
        deadline = self.rounds[-1].deadline_at
        assert deadline is not None, "a wait without a deadline"
        if self.arrivals and self.arrivals[0][0] < deadline:
            at, _, number, device, attempt, took = heapq.heappop(self.arrivals)
            if not self._change(number, device, attempt, AssignmentPhase.REPORTED):
                return  # revoked in the meantime
            self.now = at
            self.history.insert(0, (device, took))
        else:
            self.now = max(self.now, deadline)
        self._apply(Tick(self.now, frozenset(self.runner.names)))

    def _apply(self, event: RoundEvent) -> None:
        if self.spec.participation.buffered:
            transitions = step_buffered(self._window(), event)
        else:
            transitions = (step(self.rounds[-1], event),)
        for after, _ in transitions:
            self.rounds[after.number - 1] = after
        for after, effects in transitions:
            for effect in effects:
                if isinstance(effect, Offer):
                    self._begin_training(after.number, effect.device, effect.attempt)

    def _window(self) -> Window:
        *former, current = self.rounds
        limit = self.spec.participation.max_staleness + 2
        phases = (*ACTIVE, AssignmentPhase.REPORTED)
        open_rounds = [
            item
            for item in former[-limit:]
            if any(assignment.phase in phases for assignment in item.assignments)
        ]
        return (*open_rounds, current)

    def _begin_training(self, number: int, device: str, attempt: int) -> None:
        """A device accepts its offer at once; its profile gives the time of arrival."""
        self._change(number, device, attempt, AssignmentPhase.TRAINING)
        down = self.runner.down_bytes(number)
        machine = self.fleet.get(device, Machine())
        took = machine.round_s(self.runner.steps(device), down, self.runner.up_bytes(device))
        self.bytes_down += down
        self.offers += 1
        arrival = (self.now + took, self.offers, number, device, attempt, took)
        heapq.heappush(self.arrivals, arrival)

    def _change(self, number: int, device: str, attempt: int, phase: AssignmentPhase) -> bool:
        """Change the phase of an active assignment; False if it is not active."""
        before = self.rounds[number - 1]
        key = (device, attempt)
        current = next(item for item in before.assignments if (item.device, item.attempt) == key)
        if current.phase not in ACTIVE:
            return False
        changed = replace(current, phase=phase, lease_until=math.inf)
        items = tuple(changed if item is current else item for item in before.assignments)
        self.rounds[number - 1] = replace(before, assignments=items)
        return True

    def _scheduled_updates(self) -> list[ScheduledUpdate]:
        """The updates that the newest round folds, in the order of the sum."""
        slots = self.runner.slots
        part, number = self.spec.participation, self.rounds[-1].number
        if not part.buffered:
            reported = unfolded_updates(self.rounds[-1])
            return [ScheduledUpdate(item.device, slots[item.device], number) for item in reported]
        buffered = [
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
            for place, (base, item) in enumerate(buffered)
        ]

    def _result(
        self,
        number: int,
        sha256: str,
        aggregated: AggregatedRound | None,
        staleness: tuple[int, ...],
        began: float,
    ) -> RoundResult:
        evaluations = self.runner.evaluate(number)
        result = RoundResult(
            number=number,
            sha256=sha256,
            evaluations=evaluations,
            mean=weighted_mean(list(evaluations.values())) if evaluations else {},
            training=aggregated.training if aggregated else {},
            measured=aggregated.measured if aggregated else {},
            fold=aggregated.report if aggregated else None,
            bytes_up=aggregated.bytes_up if aggregated else 0,
            bytes_down=self.bytes_down,
            seconds=time.perf_counter() - began,
            virtual_s=self.now,
            staleness=staleness,
            levels=aggregated.levels if aggregated else (),
        )
        self.on_event(SimulationEvent("round", number, "", result))
        return result

"""The work of a simulated federation: training, folding and evaluating, all of it real."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from fedcore.aggregation.fold_task import FoldReport, NextFiles, ServerFiles
from fedcore.aggregation.next_model import fold_and_serve, fold_files
from fedcore.aggregation.strategies import Strategy, build, with_actual_participation
from fedcore.aggregation.update_files import UpdateFile
from fedcore.errors import DataError, Fault, SpecError
from fedcore.formats.codec_chain import PLAIN
from fedcore.formats.frame_header import read_header
from fedcore.formats.update_header import payload_bytes
from fedcore.methods.contract import DeviceState
from fedcore.methods.session import Session
from fedcore.model.initial import write_initial
from fedcore.plan.fedpipe.types import Allocation
from fedcore.simulate.fedpipe_plans import by_fedpipe
from fedcore.simulate.hierarchy import Hierarchy
from fedcore.simulate.results import OnEvent, SimulationEvent, global_file
from fedcore.simulate.uplink import Uplink
from fedcore.spec.job import JobSpec
from fedcore.spec.local_baseline import Seat
from fedcore.spec.options.lowrank import LOW_RANK_RULES
from fedcore.spec.overrides import (
    Member,
    Tailoring,
    for_evaluation,
    stranger_faults,
    tailored,
    tailoring,
    trained_shapes,
)
from fedcore.train.batches import steps_of
from fedcore.train.datasets import Source
from fedcore.train.evaluate import Evaluation
from fedcore.train.loop import TrainSummary
from fedcore.train.telemetry import Hooks


@dataclass(frozen=True)
class ScheduledUpdate:
    """An update to fold: its device's name and slot, the round it started in, its place in the sum.

    ``draw`` counts former pieces of the same device in the same round, ``scale`` is the discount.
    """

    name: str
    slot: int
    base: int
    place: int = 0
    draw: int = 0
    scale: float = 1.0


@dataclass(frozen=True)
class AggregatedRound:
    """A new version of the model and what it took; ``levels`` as ``RoundResult`` has them."""

    report: FoldReport
    training: Mapping[str, TrainSummary]
    bytes_up: int
    levels: tuple[int, ...] = ()
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def refuse_unsuitable(spec: JobSpec, strategy: Strategy) -> None:
    """Raise SpecError where a strategy that no option names cannot fold what this job's devices do.

    Devices take their objective from ``spec.strategy.name``, so both have to agree on it. Low-rank
    rules that average products have no use for a server optimizer.
    """
    faults = []
    objective = build(spec).objective
    if strategy.objective != objective:
        message = (
            f"devices of {spec.strategy.name} minimise the {objective!r} objective, {strategy.name}"
            f" expects {strategy.objective!r}; set strategy.name to one that has it"
        )
        faults.append(Fault("strategy.name", message))
    rule = spec.adapter.aggregation
    if spec.adapter.averaging.needs_products:
        others = [name for name, row in LOW_RANK_RULES.items() if not row.needs_products]
        message = f"{rule} averages products by a rule of its own; take {' or '.join(others)}"
        faults.append(Fault("adapter.aggregation", message))
    if faults:
        raise SpecError(faults)


class RoundRunner:
    """Devices, server and files of one simulated job.

    A device's slot is its place by name, where ``seats`` does not say another.
    """

    def __init__(
        self,
        spec: JobSpec,
        devices: Mapping[str, Source],
        workdir: Path,
        on_event: OnEvent,
        hooks: Hooks,
        seats: Mapping[str, Seat] | None = None,
        strategy: Strategy | None = None,
    ) -> None:
        self._spec, self._devices, self._workdir = spec, devices, workdir
        self._on_event, self._hooks = on_event, hooks
        self._strategy = strategy
        self.names = sorted(spec.participation.devices or devices)
        if missing := [name for name in self.names if name not in devices]:
            raise DataError(f"no data for {', '.join(missing)}; name devices that exist")
        workdir.mkdir(parents=True, exist_ok=True)
        self._hierarchy = Hierarchy(spec, self.names, strategy)
        members = [Member(slot, name) for slot, name in enumerate(self.names)]
        if not seats and (faults := stranger_faults(spec, members)):
            raise SpecError(faults)
        placed = seats or {one.name: Seat(one.slot, tailoring(spec, one)) for one in members}
        self.slots = {name: placed[name].slot for name in self.names}
        self._changes: dict[str, Tailoring] = {name: placed[name].tailoring for name in self.names}
        self._session = Session(workdir / "cache", spec.threads)
        self._uplinks = {slot: Uplink(spec, slot, workdir) for slot in self.slots.values()}
        self._state: Path | None = None
        self._step_bytes: int | None = None  # of the newest model, where it travels as a step

    def begin(self) -> str:
        """Read all data, so that its faults show before any work; SHA-256 of the first model.

        What devices kept of another run in the same folder is forgotten.
        """
        for slot in self.slots.values():
            shutil.rmtree(self._own(slot), ignore_errors=True)
        for name in self.names:
            self._session.prepare(self._spec, self._devices[name])
        return write_initial(self._spec, global_file(self._workdir, 0)).sha256

    def plan(self) -> None:
        """Let FedPipe decide what each device trains, where the job asks for it."""
        devices = {name: self._devices[name] for name in self.names}
        weights = global_file(self._workdir, 0)
        self._changes |= by_fedpipe(
            self._spec, self._session, devices, weights, self._tell_plan, self._hooks
        )

    def _tell_plan(self, name: str, choice: Allocation) -> None:
        self._on_event(SimulationEvent("planned", 0, name, choice))

    def _spec_of(self, name: str) -> JobSpec:
        """The job as a device trains it."""
        return tailored(self._spec, self._changes[name])

    def steps(self, name: str) -> int:
        """Optimizer steps of one round on a device."""
        prepared = self._session.prepare(self._spec, self._devices[name])
        return steps_of(self._spec_of(name).train, len(prepared.train))

    def down_bytes(self, base: int) -> int:
        """What a device fetches to train on the model that round ``base`` starts from."""
        model = self._step_bytes or global_file(self._workdir, base - 1).stat().st_size
        return model + (self._served_state.stat().st_size if self._served_state else 0)

    def up_bytes(self, name: str) -> int:
        """What a device's update will take at most, before there is one."""
        served = read_header(global_file(self._workdir, 0)).shapes
        shapes = trained_shapes(self._spec_of(name), served)
        return payload_bytes(self._spec.wire.chain or PLAIN, shapes)

    def make(self, number: int, pieces: Sequence[ScheduledUpdate]) -> AggregatedRound:
        """Train all pieces and fold them into the model of round ``number``."""
        training: dict[str, TrainSummary] = {}
        measured: dict[str, Mapping[str, float]] = {}
        updates: list[UpdateFile] = []
        for piece in pieces:
            spec = self._spec_of(piece.name)
            update = self._session.train(
                spec,
                global_file(self._workdir, piece.base - 1),
                self._devices[piece.name],
                piece.base,
                piece.slot,
                self._hooks,
                piece.draw,
                DeviceState(self._own(piece.slot), self._served_state),
            )
            path = self._workdir / f"update-{piece.slot}-{piece.place}.safetensors"
            self._uplinks[piece.slot].write(path, update.tensors, piece.base)
            updates.append(
                UpdateFile(
                    path,
                    update.examples,
                    piece.slot,
                    piece.place,
                    piece.scale,
                    update.steps,
                    update.loss_before,
                    spec,
                )
            )
            training[piece.name] = update.summary
            measured[piece.name] = update.measured
            self._on_event(SimulationEvent("trained", number, piece.name, update.summary))
        size = sum(item.path.stat().st_size for item in updates)
        names = [piece.name for piece in pieces]
        gathered = self._hierarchy.gather(
            list(zip(names, updates, strict=True)), self._shapes, self._workdir
        )
        job = with_actual_participation(self._spec, len(pieces), len(self.names))
        report = self._fold(job, number, gathered.updates)
        for item in (*updates, *gathered.made):
            item.path.unlink()
        if gathered.made:  # of clusters' means it says nothing of the devices' own factors
            report = replace(report, aggregation_error=None)
        return AggregatedRound(report, training, size, gathered.levels, measured)

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what a device sends where all devices are alike."""
        return trained_shapes(self._spec, read_header(global_file(self._workdir, 0)).shapes)

    def _own(self, slot: int) -> Path:
        """A device's private folder."""
        return self._workdir / f"own-{slot}"

    @property
    def _served_state(self) -> Path | None:
        """The server's state, where the strategy lets devices see it."""
        return self._state if self._spec.strategy.serves_state else None

    def _fold(self, job: JobSpec, number: int, updates: Sequence[UpdateFile]) -> FoldReport:
        before, after = (global_file(self._workdir, number - back) for back in (1, 0))
        state = self._workdir / f"state-{number}.safetensors"
        out = NextFiles(after, state, self._workdir / "step.safetensors")
        fold = partial(fold_files, strategy=self._strategy)
        served = fold_and_serve(job, ServerFiles(before, self._state), updates, out, fold)
        if self._state:
            self._state.unlink()
        self._state = state
        self._step_bytes = served.step.size if served.step else None
        return served.report

    def evaluate(self, number: int) -> dict[str, Evaluation]:
        """Loss and ROUGE of a round's model on every device; nothing where that is not due."""
        found: dict[str, Evaluation] = {}
        weights = global_file(self._workdir, number)
        due = self._spec.evaluation.due(number, self._spec.rounds)
        for name in self.names if due else ():
            source = self._devices[name]
            spec = tailored(self._spec, for_evaluation(self._changes[name]))
            own = DeviceState(self._own(self.slots[name]))
            found[name] = self._session.evaluate(spec, weights, source, self._hooks, number, own)
            self._on_event(SimulationEvent("evaluated", number, name, found[name]))
        return found

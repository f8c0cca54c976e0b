"""Training, aggregation and evaluation of a simulated federation, all of it real."""

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
from fedcore.methods.session import Session, Update
from fedcore.model.initial import write_initial
from fedcore.simulate.fedpipe_allocation import allocate_devices
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


@dataclass(frozen=True)
class ScheduledUpdate:
    """An update to fold: the device's name and slot, its round, and its place in the sum.

    ``base``: the round it started in. ``draw``: the number of earlier updates of the device in that
    round. ``scale``: the staleness discount.
    """

    name: str
    slot: int
    base: int
    place: int = 0
    draw: int = 0
    scale: float = 1.0


@dataclass(frozen=True)
class AggregatedRound:
    """A new version of the model and what it took; ``levels`` as in ``RoundResult``."""

    report: FoldReport
    training: Mapping[str, TrainSummary]
    bytes_up: int
    levels: tuple[int, ...] = ()
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def refuse_unsuitable(spec: JobSpec, strategy: Strategy) -> None:
    """Raise SpecError if a strategy that no option names does not suit the job.

    Devices take their objective from ``spec.strategy.name``, so both must have the same. Low-rank
    rules that average products use no server optimizer.
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

    A device's slot is its place by name, unless ``seats`` sets another.
    """

    def __init__(
        self,
        spec: JobSpec,
        devices: Mapping[str, Source],
        workdir: Path,
        on_event: OnEvent,
        seats: Mapping[str, Seat] | None = None,
        strategy: Strategy | None = None,
    ) -> None:
        self._spec, self._devices, self._workdir = spec, devices, workdir
        self._on_event, self._strategy = on_event, strategy
        self.names = sorted(spec.participation.devices or devices)
        if missing := [name for name in self.names if name not in devices]:
            raise DataError(f"no data for {', '.join(missing)}; name devices that exist")
        workdir.mkdir(parents=True, exist_ok=True)
        self._hierarchy = Hierarchy(spec, self.names, strategy)
        members = [Member(slot, name) for slot, name in enumerate(self.names)]
        if not seats and (faults := stranger_faults(spec, members)):
            raise SpecError(faults)
        assigned = seats or {one.name: Seat(one.slot, tailoring(spec, one)) for one in members}
        self.slots = {name: assigned[name].slot for name in self.names}
        self._overrides: dict[str, Tailoring] = {
            name: assigned[name].tailoring for name in self.names
        }
        self._session = Session(workdir / "cache", spec.threads)
        self._uplinks = {slot: Uplink(spec, slot, workdir) for slot in self.slots.values()}
        self._state: Path | None = None
        self._step_bytes: int | None = None  # of the newest model, if it travels as a step

    def begin(self) -> str:
        """Write the first model and return its SHA-256.

        All data is read first, so that its faults show before any work. Private files of an earlier
        run in the same folder are removed.
        """
        for slot in self.slots.values():
            shutil.rmtree(self._private_folder(slot), ignore_errors=True)
        for name in self.names:
            self._session.prepare(self._spec, self._devices[name])
        return write_initial(self._spec, global_file(self._workdir, 0)).sha256

    def plan(self) -> None:
        """Let FedPipe decide what each device trains, if that is the job's method."""
        if not self._spec.method.family.plans_each_device:
            return
        devices = {name: self._devices[name] for name in self.names}
        weights = global_file(self._workdir, 0)
        self._overrides |= allocate_devices(
            self._spec, self._session, devices, weights, self._on_event
        )

    def _spec_of(self, name: str) -> JobSpec:
        """The job with a device's overrides."""
        return tailored(self._spec, self._overrides[name])

    def steps(self, name: str) -> int:
        """Optimizer steps of one round on a device."""
        prepared = self._session.prepare(self._spec, self._devices[name])
        return steps_of(self._spec_of(name).train, len(prepared.train))

    def down_bytes(self, base: int) -> int:
        """Bytes that a device downloads before training in round ``base``."""
        model = self._step_bytes or global_file(self._workdir, base - 1).stat().st_size
        return model + (self._served_state.stat().st_size if self._served_state else 0)

    def up_bytes(self, name: str) -> int:
        """An upper bound of the bytes of a device's update."""
        served = read_header(global_file(self._workdir, 0)).shapes
        shapes = trained_shapes(self._spec_of(name), served)
        return payload_bytes(self._spec.wire.chain or PLAIN, shapes)

    def aggregate(self, number: int, scheduled: Sequence[ScheduledUpdate]) -> AggregatedRound:
        """Train all scheduled updates and fold them into the model of round ``number``."""
        training: dict[str, TrainSummary] = {}
        measured: dict[str, Mapping[str, float]] = {}
        updates: list[UpdateFile] = []
        for item in scheduled:
            update = self._train(item)
            path = self._workdir / f"update-{item.slot}-{item.place}.safetensors"
            self._uplinks[item.slot].write(path, update.tensors, item.base)
            updates.append(
                UpdateFile(
                    path,
                    update.examples,
                    item.slot,
                    item.place,
                    item.scale,
                    update.steps,
                    update.loss_before,
                    self._spec_of(item.name),
                )
            )
            training[item.name], measured[item.name] = update.summary, update.measured
            self._on_event(SimulationEvent("trained", number, item.name, update.summary))
        bytes_up = sum(file.path.stat().st_size for file in updates)
        shapes = trained_shapes(self._spec, read_header(global_file(self._workdir, 0)).shapes)
        inputs = [(item.name, file) for item, file in zip(scheduled, updates, strict=True)]
        gathered = self._hierarchy.gather(inputs, shapes, self._workdir)
        job = with_actual_participation(self._spec, len(scheduled), len(self.names))
        report = self._fold(job, number, gathered.updates)
        for file in (*updates, *gathered.cluster_updates):
            file.path.unlink()
        if gathered.cluster_updates:  # means of clusters are not the devices' own factors
            report = replace(report, aggregation_error=None)
        return AggregatedRound(report, training, bytes_up, gathered.levels, measured)

    def _train(self, item: ScheduledUpdate) -> Update:
        return self._session.train(
            self._spec_of(item.name),
            global_file(self._workdir, item.base - 1),
            self._devices[item.name],
            item.base,
            item.slot,
            draw=item.draw,
            device_state=DeviceState(self._private_folder(item.slot), self._served_state),
        )

    def _private_folder(self, slot: int) -> Path:
        return self._workdir / f"own-{slot}"

    @property
    def _served_state(self) -> Path | None:
        """The server's state, if the strategy serves it to devices."""
        return self._state if self._spec.strategy.family.serves_state else None

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
        """Loss and ROUGE of a round's model on every device; {} if evaluation is not due."""
        if not self._spec.evaluation.due(number, self._spec.rounds):
            return {}
        evaluations: dict[str, Evaluation] = {}
        weights = global_file(self._workdir, number)
        for name in self.names:
            spec = tailored(self._spec, for_evaluation(self._overrides[name]))
            state = DeviceState(self._private_folder(self.slots[name]))
            evaluations[name] = self._session.evaluate(
                spec, weights, self._devices[name], round_number=number, device_state=state
            )
            self._on_event(SimulationEvent("evaluated", number, name, evaluations[name]))
        return evaluations

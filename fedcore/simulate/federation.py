"""The rounds of a federation, one after another in this process.

The same specification, selection, session and fold as a launched job, in the same order: for equal
seeds, fp32, one thread and ``deterministic`` the global weights are the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedcore.errors import DataError
from fedcore.model.initial import write_initial
from fedcore.sampling import select
from fedcore.spec import JobSpec
from fedcore.strategy.fold import FoldReport, UpdateFile, fold_files
from fedcore.train.evaluate import Evaluation
from fedcore.train.loop import TrainSummary
from fedcore.train.session import Session
from fedcore.train.sources import Source
from fedcore.train.telemetry import Hooks
from fedcore.wire.frame import write_frame

MEASURES = ("loss", "rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class RoundResult:
    """One round; round 0 is the evaluation before training.

    ``mean`` weights each device's loss and ROUGE (percent) by its validation examples. Bytes are
    those of all the round's members together: updates up, global weights down.
    """

    number: int
    sha256: str
    evaluations: Mapping[str, Evaluation]
    mean: Mapping[str, float]
    training: Mapping[str, TrainSummary]
    fold: FoldReport | None
    bytes_up: int
    bytes_down: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Event:
    """Something that happened: ``kind`` is evaluated, trained or round; ``value`` is its result."""

    kind: str
    round_number: int
    device: str
    value: object


OnEvent = Callable[[Event], None]


def simulate(
    spec: JobSpec,
    devices: Mapping[str, Source],
    workdir: Path | str,
    on_event: OnEvent | None = None,
    hooks: Hooks | None = None,
) -> list[RoundResult]:
    """Run every round of a job. ``workdir`` keeps ``global-ROUND.safetensors`` of each.

    A device's slot is its place among all names, sorted.
    """
    return _Federation(spec, devices, Path(workdir), on_event or _ignore, hooks or Hooks()).run()


def _ignore(event: Event) -> None:
    del event


def global_file(workdir: Path, number: int) -> Path:
    """The global weights after a round."""
    return workdir / f"global-{number}.safetensors"


def weighted_mean(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """Mean loss and ROUGE over devices, weighted by their validation examples."""
    total = sum(item.examples for item in evaluations)
    return {
        key: sum(getattr(item, key) * item.examples for item in evaluations) / total
        for key in MEASURES
    }


class _Federation:
    def __init__(
        self,
        spec: JobSpec,
        devices: Mapping[str, Source],
        workdir: Path,
        on_event: OnEvent,
        hooks: Hooks,
    ) -> None:
        self.spec, self.devices, self.workdir = spec, devices, workdir
        self.on_event, self.hooks = on_event, hooks
        self.names = sorted(spec.participation.devices or devices)
        if missing := [name for name in self.names if name not in devices]:
            raise DataError(f"no data for {', '.join(missing)}; name devices that exist")
        workdir.mkdir(parents=True, exist_ok=True)
        self.session = Session(workdir / "cache", spec.threads)
        self.state: Path | None = None

    def run(self) -> list[RoundResult]:
        began = time.perf_counter()
        for name in self.names:  # all faults of the data before any work
            self.session.prepare(self.spec, self.devices[name])
        first = write_initial(self.spec, global_file(self.workdir, 0))
        results = [self._close(0, first.sha256, {}, None, (0, 0), began)]
        for number in range(1, self.spec.rounds + 1):
            results.append(self._round(number))
        return results

    def _round(self, number: int) -> RoundResult:
        began = time.perf_counter()
        before = global_file(self.workdir, number - 1)
        members = select(self.names, self.spec.participation, self.spec.seed, number).members
        summaries: dict[str, TrainSummary] = {}
        updates: list[UpdateFile] = []
        for name in members:
            slot = self.names.index(name)
            update = self.session.train(
                self.spec, before, self.devices[name], number, slot, self.hooks
            )
            path = self.workdir / f"update-{slot}.safetensors"
            write_frame(path, update.tensors, {"kind": "update", "slot": str(slot)})
            updates.append(UpdateFile(path, update.examples, slot))
            summaries[name] = update.summary
            self.on_event(Event("trained", number, name, update.summary))
        fold = self._fold(number, updates)
        sizes = sum(item.path.stat().st_size for item in updates), before.stat().st_size
        for item in updates:
            item.path.unlink()
        down = sizes[1] * len(members)
        return self._close(
            number, fold.global_frame.sha256, summaries, fold, (sizes[0], down), began
        )

    def _fold(self, number: int, updates: Sequence[UpdateFile]) -> FoldReport:
        before, after = (global_file(self.workdir, number - back) for back in (1, 0))
        state = self.workdir / f"state-{number}.safetensors"
        report = fold_files(self.spec, before, updates, self.state, after, state)
        if self.state:
            self.state.unlink()
        self.state = state
        return report

    def _close(
        self,
        number: int,
        sha256: str,
        training: Mapping[str, TrainSummary],
        fold: FoldReport | None,
        moved: tuple[int, int],
        began: float,
    ) -> RoundResult:
        evaluations = {}
        for name in self.names:
            weights = global_file(self.workdir, number)
            found = self.session.evaluate(self.spec, weights, self.devices[name], self.hooks)
            evaluations[name] = found
            self.on_event(Event("evaluated", number, name, found))
        mean = weighted_mean(list(evaluations.values()))
        seconds = time.perf_counter() - began
        result = RoundResult(number, sha256, evaluations, mean, training, fold, *moved, seconds)
        self.on_event(Event("round", number, "", result))
        return result

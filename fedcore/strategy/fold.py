"""One round's aggregation on files: updates in, next global weights and server state out.

Streaming: one tensor of one update is in memory at a time, next to the sum. Updates are taken by
slot, never by arrival, and on one thread, so a fold repeated after a crash, or on another machine,
gives the same bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedcore.errors import FoldError
from fedcore.spec import JobSpec
from fedcore.strategy.lowrank import aggregation_error
from fedcore.strategy.parts import Stage, Strategy, TensorFilter, UpdateStats
from fedcore.strategy.table import build
from fedcore.train.hardware import threads
from fedcore.wire.frame import FrameInfo, FrameReader, FrameWriter


@dataclass(frozen=True)
class UpdateFile:
    """A device's checked update: a frame of deltas, its weight (examples), its fixed slot."""

    path: Path
    weight: float
    slot: int


@dataclass(frozen=True)
class FoldReport:
    """What a fold did. Norms (before filters) and weights (sum 1) are by slot.

    ``aggregation_error`` is |served - mean(s B A)| / |mean(s B A)| over all adapted matrices,
    before the server stage; None for full fine-tuning and where nothing was learned at all.
    ``bytes_read`` counts the updates' bytes once.
    """

    update_norms: dict[int, float]
    weights: dict[int, float]
    aggregation_error: float | None
    seconds: float
    bytes_read: int
    global_frame: FrameInfo
    state_frame: FrameInfo


@dataclass(frozen=True)
class _Member:
    slot: int
    share: float
    reader: FrameReader
    filters: tuple[TensorFilter, ...]
    norm: float

    def delta(self, name: str) -> Tensor:
        tensor = self.reader[name].float()
        for change in self.filters:
            tensor = change(tensor)
        return tensor


@dataclass(frozen=True)
class FoldFiles:
    """Paths of one fold: the global weights and server state before (None: no state yet), after."""

    before: Path
    state_before: Path | None
    after: Path
    state_after: Path


def fold_files(
    spec: JobSpec,
    global_path: Path | str,
    updates: Sequence[UpdateFile],
    state_path: Path | str | None,
    out_global: Path | str,
    out_state: Path | str,
) -> FoldReport:
    """Fold updates into the next global weights.

    The frames must have passed ``check_frame``. Raises FoldError without updates, with two of one
    slot, or with weights that are negative or sum to nothing.
    """
    began = time.perf_counter()
    strategy = build(spec)
    shares = _shares(updates)
    state = Path(state_path) if state_path else None
    files = FoldFiles(Path(global_path), state, Path(out_global), Path(out_state))
    with threads(1), torch.no_grad():
        members = [_member(strategy, update, shares[update.slot]) for update in _sorted(updates)]
        frames = _fold(strategy, members, files)
        error = None
        if spec.adapter.kind == "lora":
            error = aggregation_error(FrameReader(files.before), _deltas(members))
    return FoldReport(
        {member.slot: member.norm for member in members},
        shares,
        error,
        time.perf_counter() - began,
        sum(member.reader.header.size for member in members),
        *frames,
    )


def _sorted(updates: Sequence[UpdateFile]) -> list[UpdateFile]:
    return sorted(updates, key=lambda update: update.slot)


def _shares(updates: Sequence[UpdateFile]) -> dict[int, float]:
    """Each slot's share of the total weight."""
    if not updates:
        raise FoldError("no update arrived, so there is nothing to fold; the global weights stay")
    weights = {update.slot: float(update.weight) for update in _sorted(updates)}
    if len(weights) != len(updates):
        raise FoldError("two updates claim the same slot; fold each device once")
    if any(not math.isfinite(weight) or weight < 0 for weight in weights.values()):
        raise FoldError("an update has a weight that is negative or not finite")
    total = math.fsum(weights.values())
    if total <= 0:
        raise FoldError("all updates have weight zero; check the devices' example counts")
    return {slot: weight / total for slot, weight in weights.items()}


def _member(strategy: Strategy, update: UpdateFile, share: float) -> _Member:
    reader = FrameReader(update.path)
    norm = _norm(reader)
    filters = tuple(item.prepare(UpdateStats(norm)) for item in strategy.filters)
    return _Member(update.slot, share, reader, filters, norm)


def _norm(tensors: Mapping[str, Tensor]) -> float:
    squares = (float(tensors[name].double().square().sum()) for name in sorted(tensors))
    return math.sqrt(math.fsum(squares))


def _deltas(members: Sequence[_Member]) -> list[tuple[float, Callable[[str], Tensor]]]:
    return [(member.share, member.delta) for member in members]


def _fold(
    strategy: Strategy, members: Sequence[_Member], files: FoldFiles
) -> tuple[FrameInfo, FrameInfo]:
    old = FrameReader(files.before)
    state = FrameReader(files.state_before) if files.state_before else None
    rounds = _rounds_before(strategy, state) + 1
    _check_names(old, members)
    meta = {"kind": "state", "strategy": strategy.name, "rounds": str(rounds)}
    with ExitStack() as stack:
        layout = {name: ("F32", shape) for name, (_, shape) in old.layout.items()}
        out = stack.enter_context(FrameWriter(files.after, layout, dict(old.meta)))
        kept = stack.enter_context(
            FrameWriter(files.state_after, _state_layout(strategy, layout), meta)
        )
        for name in out.order:
            step, moments = _next(strategy, members, state, name)
            out.write(name, old[name].float() + step)
            for key in sorted(moments):
                kept.write(key, moments[key])
    assert out.info is not None and kept.info is not None
    return out.info, kept.info


def _check_names(old: FrameReader, members: Sequence[_Member]) -> None:
    for member in members:
        if member.reader.header.shapes != old.header.shapes:
            raise FoldError(
                f"the update of slot {member.slot} does not fit the global weights' names and "
                "shapes; check frames before folding"
            )


def _next(
    strategy: Strategy, members: Sequence[_Member], state: FrameReader | None, name: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """The step of one tensor, and its moments under their keys in the state frame."""
    step = strategy.fold.run((member.share, member.delta(name)) for member in members)
    kept: dict[str, Tensor] = {}
    for number, stage in enumerate(strategy.stages):
        moments = {
            moment: state[key] if state else torch.full_like(step, stage.start[moment])
            for moment, key in _keys(name, number, stage)
        }
        step, moments_after = stage.run(step, moments)
        kept |= {key: moments_after[moment] for moment, key in _keys(name, number, stage)}
    return step, kept


def _keys(name: str, number: int, stage: Stage) -> Iterator[tuple[str, str]]:
    """(moment, key in the state frame) of one tensor; the blank makes keys sort as names."""
    for moment in sorted(stage.start):
        yield moment, f"{name} {number}.{stage.name}.{moment}"


def _state_layout(
    strategy: Strategy, layout: Mapping[str, tuple[str, Sequence[int]]]
) -> dict[str, tuple[str, Sequence[int]]]:
    return {
        key: shape
        for name, shape in layout.items()
        for number, stage in enumerate(strategy.stages)
        for _, key in _keys(name, number, stage)
    }


def _rounds_before(strategy: Strategy, state: FrameReader | None) -> int:
    if state is None:
        return 0
    if state.meta.get("strategy") != strategy.name:
        raise FoldError(
            f"the server state is of {state.meta.get('strategy')}, not of {strategy.name}; "
            "start without it"
        )
    return int(state.meta["rounds"])

"""One round's aggregation on files: updates in, next global weights and server state out.

What trains in full and what is averaged entry by entry is folded as rows of numbers
(``fedcore.aggregation.elementwise``); the rules of low-rank averaging that look at products come
after that, or take its place (``fedcore.aggregation.lowrank.product_fold``). Either way updates are
taken in the order of their keys, never of their arrival: a fold repeated after a crash gives the
same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from fedcore.aggregation.elementwise import Paths
from fedcore.aggregation.fold_outputs import FoldReport
from fedcore.aggregation.folds import Strategy
from fedcore.aggregation.lowrank.product_fold import RULES
from fedcore.aggregation.strategies import build
from fedcore.aggregation.update_files import NextFiles, ServerFiles, UpdateFile
from fedcore.compute.device import torch_threads
from fedcore.formats.frame_header import sha256_file
from fedcore.spec.job import JobSpec
from fedcore.wire.downlink import StepSource, send_step
from fedcore.wire.frame import FrameInfo


def fold_files(
    spec: JobSpec,
    global_path: Path | str,
    updates: Sequence[UpdateFile],
    state_path: Path | str | None,
    out_global: Path | str,
    out_state: Path | str,
    threads: int = 0,
    strategy: Strategy | None = None,
) -> FoldReport:
    """Fold updates into the next global weights, on ``threads`` threads (0: all cores).

    ``strategy`` takes the place of the one that the job names.
    Headers must have passed ``check_header``; numbers need no check before. Raises FoldError as
    ``open_inputs`` does, and UpdatesRefused where an update holds NaN or infinity: nothing is
    written then.
    """
    before = ServerFiles(Path(global_path), Path(state_path) if state_path else None)
    paths = Paths(before, Path(out_global), Path(out_state))
    rule = RULES[spec.adapter.averaging.rule]
    return rule(spec, paths, updates, threads, strategy or build(spec))


@dataclass(frozen=True)
class PublishedModel:
    """What was written; ``step`` is None where whole models travel."""

    report: FoldReport
    step: FrameInfo | None


class FoldFunction(Protocol):
    """``fold_files``, or what stands for it where the work is done already."""

    def __call__(
        self,
        spec: JobSpec,
        global_path: Path,
        updates: Sequence[UpdateFile],
        state_path: Path | None,
        out_global: Path,
        out_state: Path,
    ) -> FoldReport: ...


def fold_and_serve(
    spec: JobSpec,
    before: ServerFiles,
    updates: Sequence[UpdateFile],
    after: NextFiles,
    fold: FoldFunction = fold_files,
) -> PublishedModel:
    """Fold updates into the next model; where steps travel, the one the step leads to.

    Raises as ``fold_files`` does.
    """
    chain = spec.wire.step_chain
    if chain is None:
        return PublishedModel(
            fold(spec, before.model, updates, before.state, after.model, after.state), None
        )
    wished, state = (path.with_name(f"{path.name}.folded") for path in (after.model, after.state))
    try:
        report = fold(spec, before.model, updates, before.state, wished, state)
        folded = StepSource(before.model, wished, before.state, state)
        base = sha256_file(before.model)
        with torch_threads(1):
            sent = send_step(chain, folded, base, after.step, after.model, after.state)
    finally:
        wished.unlink(missing_ok=True)
        state.unlink(missing_ok=True)
    return PublishedModel(
        replace(report, global_frame=sent.model, state_frame=sent.state), sent.step
    )

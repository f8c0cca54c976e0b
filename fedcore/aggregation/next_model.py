"""The next global model of a round, from its updates: the whole path of an aggregation.

1. ``update_files``: the updates are opened and weighted, by shares, filters and reweighting.
2. The fold, in pieces that need little memory. What trains in full, and factors that are averaged
   entry by entry: block by block (``elementwise``). Adapters whose products are averaged: matrix by
   matrix (``lowrank.product_fold``).
3. The server optimizer moves the model, in the same pass.
4. Model and server state are written as frames, with a report.
5. Where the job sends steps instead of models, the step is encoded, and the model is the one that
   the step leads to (``fold_and_serve``).

Updates are taken in the order of their keys, never of their arrival: a fold repeated after a crash
gives the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from fedcore.aggregation.fold_task import FoldReport, FoldTask, NextFiles, ServerFiles
from fedcore.aggregation.lowrank.product_fold import RULE_FOLDS
from fedcore.aggregation.strategies import Strategy, build
from fedcore.aggregation.update_files import UpdateFile
from fedcore.compute.determinism import torch_threads
from fedcore.formats.frame_header import sha256_file
from fedcore.spec.job import JobSpec
from fedcore.wire.downlink import StepSource, send_step
from fedcore.wire.frame import FrameInfo


def fold_files(
    spec: JobSpec,
    before: ServerFiles,
    updates: Sequence[UpdateFile],
    after: NextFiles,
    threads: int = 0,
    strategy: Strategy | None = None,
) -> FoldReport:
    """Fold updates into the next global model, on ``threads`` threads (0: all cores).

    ``strategy`` takes the place of the one that the job names. Headers must have passed
    ``check_header``; numbers need no check before. Raises FoldError as ``open_updates`` does, and
    UpdatesRefused where an update holds NaN or infinity: nothing is written then.
    """
    began = time.perf_counter()
    task = FoldTask(spec, strategy or build(spec), before, updates, after, threads)
    report = RULE_FOLDS[spec.adapter.averaging.rule](task)
    return replace(report, seconds=time.perf_counter() - began)


@dataclass(frozen=True)
class PublishedModel:
    """What was written; ``step`` is None where whole models travel."""

    report: FoldReport
    step: FrameInfo | None


class FoldFunction(Protocol):
    """``fold_files``, or what stands for it where the work is done already."""

    def __call__(
        self, spec: JobSpec, before: ServerFiles, updates: Sequence[UpdateFile], after: NextFiles
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
        return PublishedModel(fold(spec, before, updates, after), None)
    assert after.step is not None, "a job that sends steps needs a file for them"
    folded = NextFiles(
        *(path.with_name(f"{path.name}.folded") for path in (after.model, after.state))
    )
    try:
        report = fold(spec, before, updates, folded)
        source = StepSource(before.model, folded.model, before.state, folded.state)
        base = sha256_file(before.model)
        with torch_threads(1):
            sent = send_step(chain, source, base, after.step, after.model, after.state)
    finally:
        folded.model.unlink(missing_ok=True)
        folded.state.unlink(missing_ok=True)
    report = replace(report, global_frame=sent.model, state_frame=sent.state)
    return PublishedModel(report, sent.step)

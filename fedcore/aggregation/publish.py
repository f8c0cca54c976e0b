"""A round's aggregation as devices see it: the fold, and the model they are then served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from fedcore.aggregation.aggregate import FoldReport, UpdateFile, fold_files
from fedcore.compute.device import threads
from fedcore.formats.frame_header import sha256_file
from fedcore.spec.job import JobSpec
from fedcore.wire.frame import FrameInfo
from fedcore.wire.step import Folded, send_step


@dataclass(frozen=True)
class Before:
    """The model a round started from and the server's state (None: no state yet)."""

    model: Path
    state: Path | None


@dataclass(frozen=True)
class After:
    """Where the next model, the server's state and the step between the models are written."""

    model: Path
    state: Path
    step: Path


@dataclass(frozen=True)
class Served:
    """What was written; ``step`` is None where whole models travel."""

    report: FoldReport
    step: FrameInfo | None


class Fold(Protocol):
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
    before: Before,
    updates: Sequence[UpdateFile],
    after: After,
    fold: Fold = fold_files,
) -> Served:
    """Fold updates into the next model; where steps travel, the one the step leads to.

    Raises as ``fold_files`` does.
    """
    chain = spec.wire.step_chain
    if chain is None:
        return Served(
            fold(spec, before.model, updates, before.state, after.model, after.state), None
        )
    wished, state = (path.with_name(f"{path.name}.folded") for path in (after.model, after.state))
    try:
        report = fold(spec, before.model, updates, before.state, wished, state)
        folded = Folded(before.model, wished, before.state, state)
        base = sha256_file(before.model)
        with threads(1):
            sent = send_step(chain, folded, base, after.step, after.model, after.state)
    finally:
        wished.unlink(missing_ok=True)
        state.unlink(missing_ok=True)
    return Served(replace(report, global_frame=sent.model, state_frame=sent.state), sent.step)

"""One round's aggregation on files: updates in, next global weights and server state out.

What trains in full and what is averaged entry by entry is folded as rows of numbers
(``fedcore.aggregation.elementwise``); the rules of low-rank averaging that look at products come
after that, or take its place (``fedcore.aggregation.lowrank.aggregate``). Either way updates are
taken in the order of their keys, never of their arrival: a fold repeated after a crash gives the
same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedcore.aggregation.elementwise import Paths, fold_row
from fedcore.aggregation.inputs import Before, UpdateFile, UpdatesRefused
from fedcore.aggregation.lowrank.aggregate import RULES
from fedcore.aggregation.registry import build
from fedcore.aggregation.report import FoldReport
from fedcore.aggregation.strategy import Strategy
from fedcore.spec.job import JobSpec

__all__ = ["FoldReport", "UpdateFile", "UpdatesRefused", "fold_files"]


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
    before = Before(Path(global_path), Path(state_path) if state_path else None)
    paths = Paths(before, Path(out_global), Path(out_state))
    rule = RULES[spec.adapter.aggregation] if spec.adapter.kind == "lora" else fold_row
    return rule(spec, paths, updates, threads, strategy or build(spec))

"""Execute one run of a study in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from fedcore.errors import FoldError, TrainingError
from fedcore.plan.cost.allocation import Allocation
from fedcore.simulate.agglomerative.leaves import simulate_leaves
from fedcore.simulate.federation import simulate
from fedcore.simulate.partitioning import deal
from fedcore.simulate.results import RoundResult, SimulationEvent
from fedcore.spec.options.method import Exchange
from fedcore.study.metrics import Record
from fedcore.study.runs import RunStore, StudyRun
from fedcore.train.datasets import Source

SIMULATIONS = {Exchange.UPDATES: simulate, Exchange.LOGITS: simulate_leaves}

OnRound = Callable[[int, int], None]  # rounds done, of how many


def execute(
    shelf: RunStore, run: StudyRun, workdir: Path, threads: int, on_round: OnRound
) -> Record:
    """Simulate one run. Divergence is a result and is recorded as a failure.

    ``threads`` 0: all cores. Raises EdgewiseError for errors that a retry may fix, such as
    unreadable data or a missing model.
    """
    began, study = time.perf_counter(), shelf.study
    spec = replace(run.spec(study), threads=threads)
    source = Source(str(shelf.data), study.text_column, study.summary_column)
    devices = deal(source, run.split.config(run.seed), workdir)
    rounds: list[dict[str, Any]] = []
    plans: dict[str, dict[str, Any]] = {}

    def listen(event: SimulationEvent) -> None:
        if isinstance(event.value, RoundResult):
            rounds.append(round_record(event.value))
            on_round(event.round_number, spec.rounds)
        if isinstance(event.value, Allocation):
            plans[event.device] = plan_record(event.value)

    failure = ""
    try:
        SIMULATIONS[spec.method.family.exchange](spec, devices, workdir, listen)
    except (TrainingError, FoldError) as error:
        failure = str(error)
    made_with = {"torch": torch.__version__, "threads": str(threads)}
    seconds = time.perf_counter() - began
    return Record(shelf.inputs(run), rounds, seconds, failure, made_with, plans)


def round_record(result: RoundResult) -> dict[str, Any]:
    """The values of one round that metrics need."""
    return {
        "number": result.number,
        "sha256": result.sha256,
        "mean": dict(result.mean),
        "devices": {name: asdict(evaluation) for name, evaluation in result.evaluations.items()},
        "train_loss": {name: evaluation.loss for name, evaluation in result.training.items()},
        "measured": {name: dict(values) for name, values in result.measured.items()},
        "aggregation_error": result.fold.aggregation_error if result.fold else None,
        "bytes_up": result.bytes_up,
        "bytes_down": result.bytes_down,
        "seconds": result.seconds,
        "virtual_s": result.virtual_s,
    }


def plan_record(choice: Allocation) -> dict[str, Any]:
    """A device's FedPipe plan as numbers. ``rank`` is the mean over adapted matrices."""
    ranks = [rank for rank in choice.ranks.values() if rank]
    return {
        "matrices": len(ranks),
        "rank": sum(ranks) / max(1, len(ranks)),
        "base": choice.setting.base,
        "batch": choice.setting.batch,
        "memory_mb": choice.memory / 1e6,
        "score": choice.score,
        "why": choice.why,
    }

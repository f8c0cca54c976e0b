"""Local training loops by method; supervised training is the default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedcore.methods.contract import Context, LossTerm
from fedcore.methods.pfit.ppo_loop import reinforce
from fedcore.spec.options.method import PFIT
from fedcore.train.loop import TrainSummary, train_locally
from fedcore.train.tokenization import Prepared

Loop = Callable[[Context, Prepared, Any, LossTerm], tuple[TrainSummary, dict[str, float]]]


def supervised(
    context: Context, prepared: Prepared, tokenizer: Any, term: LossTerm
) -> tuple[TrainSummary, dict[str, float]]:
    """Train on the references; there are no metrics beside the summary."""
    del prepared, tokenizer
    return train_locally(context.work, context.hooks, term.penalty, term.kernels), {}


LOOPS: Mapping[str, Loop] = {PFIT: reinforce}  # by ``method.name``

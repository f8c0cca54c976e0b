"""What a method does on a device: its loss term, its training loop, its personal model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedcore.methods.contract import Context, DeviceState, LossTerm, Objective
from fedcore.train.loop import TrainSummary, train_locally
from fedcore.train.tokenization import Prepared

Loop = Callable[[Context, Prepared, Any, LossTerm], tuple[TrainSummary, dict[str, float]]]


def no_term(context: Context) -> LossTerm:
    """The task loss alone."""
    del context
    return LossTerm()


def supervised(
    context: Context, prepared: Prepared, tokenizer: Any, term: LossTerm
) -> tuple[TrainSummary, dict[str, float]]:
    """Train on the reference summaries; nothing is measured beside the summary of training."""
    del prepared, tokenizer
    return train_locally(context.work, context.hooks, term.penalty, term.kernels), {}


@dataclass(frozen=True)
class MethodTraining:
    """One method on a device.

    ``objective`` gives the term beside the task loss and the strategy's own. ``loop`` trains one
    round and returns its summary and what else is reported. ``load_personal`` turns the model into
    the device's own, as it is after a round (None: the method has no personal model).
    """

    objective: Objective = no_term
    loop: Loop = supervised
    load_personal: Callable[[Any, DeviceState, int], None] | None = None

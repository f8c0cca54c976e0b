"""The table of methods on a device, one folder of this package for each."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedcore.aggregation.strategies import build
from fedcore.families import member_rows
from fedcore.methods.contract import Context, LossTerm
from fedcore.methods.objectives import OBJECTIVES
from fedcore.methods.training import MethodTraining
from fedcore.spec.options.method import MethodKind
from fedcore.train.loop import Weights, no_penalty

METHOD_TRAINING: Mapping[MethodKind, MethodTraining] = member_rows(
    MethodKind, "fedcore.methods.{}.method", MethodTraining
)


def term_of(context: Context) -> LossTerm:
    """The sum of the strategy's and the method's loss terms."""
    of_method = METHOD_TRAINING[context.spec.method.family.kind].objective
    terms = [OBJECTIVES[build(context.spec).objective](context), of_method(context)]
    kernels = next((term.kernels for term in terms if term.kernels), None)
    penalties = [term.penalty for term in terms if term.penalty is not no_penalty]

    def finish(delta: Weights, steps: int) -> None:
        for term in terms:
            term.finish(delta, steps)

    if len(penalties) < 2:
        return LossTerm(penalties[0] if penalties else no_penalty, finish, kernels)

    def penalty(weights: Weights) -> Tensor | None:
        values = [value for one in penalties if (value := one(weights)) is not None]
        return torch.stack(values).sum() if values else None

    return LossTerm(penalty, finish, kernels)

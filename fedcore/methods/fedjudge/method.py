"""FedJudge: a penalty on moving weights that the shared model depends on.

Yue et al., "FedJudge: Federated Legal Large Language Model", arXiv 2309.08173, section on continual
learning. From the second round on a device adds ``lambda * sum_k J_k |w_k - w*_k|`` to its loss.
``w*`` is the received adapter, and ``J_k`` the importance of weight k there: the mean of
``|dL/dw_k|`` over the device's data.

Our choices: the mean is over batches of the size of training, weighted by their target tokens, of
at most ``passes.MAX_EXAMPLES`` examples and without dropout. The subgradient of ``|x|`` at 0 is
taken as 0, so the first step of a round follows the task's loss alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcore.methods.contract import Context, LossTerm
from fedcore.methods.training import MethodTraining
from fedcore.model.parameters import trainable_parameters
from fedcore.train.gradient_passes import each_gradient
from fedcore.train.loop import Weights


def restraint(context: Context) -> LossTerm:
    """The penalty of ``method.restraint``; none in the first round or if that is 0."""
    strength = context.spec.method.restraint
    if context.round_number < 2 or strength == 0:
        return LossTerm()
    fixed, weight = context.received(), importance(context)

    def penalty(weights: Weights) -> Tensor:
        terms = [(weight[name] * (weights[name] - fixed[name]).abs()).sum() for name in weight]
        return strength * torch.stack(terms).sum()

    return LossTerm(penalty)


def importance(context: Context) -> dict[str, Tensor]:
    """J of every trainable weight, by artefact name, at the current weights."""
    live = dict(trainable_parameters(context.work.model))
    sums = {name: torch.zeros_like(live[name]) for name in sorted(live)}

    def add(share: float) -> None:
        for name, total in sums.items():
            grad = live[name].grad
            if grad is not None:
                total.add_(grad.abs(), alpha=share)

    each_gradient(context.work, context.hooks, add)
    return sums


ROW = MethodTraining(objective=restraint)

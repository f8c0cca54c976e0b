"""FedJudge's restraint: a device forgets little of what all devices know.

Yue et al., "FedJudge: Federated Legal Large Language Model", arXiv 2309.08173, section on continual
learning: beside its loss a device minimises, from the second round on,
``lambda * sum_k J_k |w_k - w*_k|``, where ``w*`` is the adapter as it was received and ``J_k`` is
how much the loss depends on weight k there: the mean of ``|dL/dw_k|`` over the device's data.

Our choices: the mean is over batches of the size of training, weighted by their target tokens, of
at most ``passes.MAX_EXAMPLES`` examples and without dropout. ``|x|`` has any slope in [-1, 1] at 0,
and 0 is taken: the first step of a round is the task's alone, every later one is held back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcore.methods.contract import Context, LossTerm
from fedcore.model.parameters import trainable_parameters
from fedcore.train.gradient_passes import each_gradient
from fedcore.train.loop import Weights


def restraint(context: Context) -> LossTerm:
    """The term of ``method.restraint``; nothing in the first round, or where that is 0."""
    strength = context.spec.method.restraint
    if context.round_number < 2 or strength == 0:
        return LossTerm()
    fixed, weight = context.received(), importance(context)

    def penalty(weights: Weights) -> Tensor:
        terms = [(weight[name] * (weights[name] - fixed[name]).abs()).sum() for name in weight]
        return strength * torch.stack(terms).sum()

    return LossTerm(penalty)


def importance(context: Context) -> dict[str, Tensor]:
    """J of every trainable weight, by artefact name, where the model is now. Changes no weight."""
    live = dict(trainable_parameters(context.work.model))
    found = {name: torch.zeros_like(live[name]) for name in sorted(live)}

    def add(share: float) -> None:
        for name, total in found.items():
            grad = live[name].grad
            if grad is not None:
                total.add_(grad.abs(), alpha=share)

    each_gradient(context.work, context.hooks, add)
    return found

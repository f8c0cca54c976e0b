"""Client objectives by name: what a device minimises beside its task loss.

An objective takes a device before its first step and returns a loss term: the penalty of every step
and a function to call after training (``fedcore.methods.contract``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fedcore.aggregation.strategies import build
from fedcore.methods.bridge_loss import agglomerative
from fedcore.methods.contract import Context, DeviceState, LossTerm, Objective
from fedcore.methods.fedjudge import restraint
from fedcore.methods.pftt import load_personal_lora, personal_lora_term
from fedcore.methods.scaffold import controlled
from fedcore.train.loop import Weights, no_penalty


def plain(context: Context) -> LossTerm:
    """The task loss alone."""
    del context
    return LossTerm()


def proximal(context: Context) -> LossTerm:
    """FedProx (Li et al., arXiv 1812.06127): ``mu / 2 * |w - w_global|^2``."""
    return _distance(context, 0.5 * context.spec.strategy.proximal_mu)


def l2_to_received(context: Context) -> LossTerm:
    """PFIT (arXiv 2404.13238): ``method.distance * |w - w_received|^2``."""
    return _distance(context, context.spec.method.distance)


def _distance(context: Context, factor: float) -> LossTerm:
    """``factor * |w - w_received|^2`` over all trainable weights."""
    if factor == 0:
        return LossTerm()
    fixed = context.received()

    def penalty(weights: Weights) -> Tensor:
        terms = [(weights[name] - fixed[name]).square().sum() for name in sorted(fixed)]
        return factor * torch.stack(terms).sum()

    return LossTerm(penalty)


# By the objective of the strategy, and by the method.
OBJECTIVES: Mapping[str, Objective] = {
    "plain": plain,
    "proximal": proximal,
    "controlled": controlled,
}
METHOD_OBJECTIVES: Mapping[str, Objective] = {
    "fedjudge": restraint,
    "agglomerative": agglomerative,
    "pfit": l2_to_received,
    "pftt": personal_lora_term,
}
# Methods with a personal model, and how to load it for evaluation.
PERSONAL: Mapping[str, Callable[[Any, DeviceState, int], None]] = {"pftt": load_personal_lora}


def term_of(context: Context) -> LossTerm:
    """The sum of the strategy's and the method's loss terms."""
    objectives = [OBJECTIVES[build(context.spec).objective]]
    if of_method := METHOD_OBJECTIVES.get(context.spec.method.name):
        objectives.append(of_method)
    terms = [objective(context) for objective in objectives]
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

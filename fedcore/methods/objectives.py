"""What a device minimises beside its task loss, as values in tables by name.

An objective sees the device before its first step and returns a term: what to add to the loss at
the weights of every step, and what to do once training is done (``fedcore.methods.contract``).
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
    """``factor * |w - w_received|^2`` over all that trains."""
    if factor == 0:
        return LossTerm()
    fixed = context.received()

    def penalty(weights: Weights) -> Tensor:
        terms = [(weights[name] - fixed[name]).square().sum() for name in sorted(fixed)]
        return factor * torch.stack(terms).sum()

    return LossTerm(penalty)


# By the name that a strategy's recipe gives, and by the name of a method that has an objective.
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
# Methods that give a device a model of its own: they make the model at hand that, as after a round.
PERSONAL: Mapping[str, Callable[[Any, DeviceState, int], None]] = {"pftt": load_personal_lora}


def term_of(context: Context) -> LossTerm:
    """What the strategy and the method ask of a device, as one term."""
    asked = [OBJECTIVES[build(context.spec).objective]]
    if own := METHOD_OBJECTIVES.get(context.spec.method.name):
        asked.append(own)
    return _sum([objective(context) for objective in asked])


def _sum(terms: list[LossTerm]) -> LossTerm:
    kernels = next((term.kernels for term in terms if term.kernels), None)
    penalties = [term.penalty for term in terms if term.penalty is not no_penalty]

    def finish(delta: Weights, steps: int) -> None:
        for term in terms:
            term.finish(delta, steps)

    if len(penalties) < 2:
        return LossTerm(penalties[0] if penalties else no_penalty, finish, kernels)

    def penalty(weights: Weights) -> Tensor | None:
        found = [value for one in penalties if (value := one(weights)) is not None]
        return torch.stack(found).sum() if found else None

    return LossTerm(penalty, finish, kernels)

"""What a device minimises beside its task loss, as values in tables by name.

An objective sees the device before its first step and returns a term: what to add to the loss at
the weights of every step, and what to do once training is done (``fedcore.train.terms``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedcore.strategy.table import build
from fedcore.train.controls import controlled
from fedcore.train.loop import Weights, no_penalty
from fedcore.train.restraint import restraint
from fedcore.train.terms import Context, Objective, Term


def plain(context: Context) -> Term:
    """The task loss alone."""
    del context
    return Term()


def proximal(context: Context) -> Term:
    """FedProx (Li et al., arXiv 1812.06127): ``mu / 2 * |w - w_global|^2``."""
    mu = context.spec.strategy.proximal_mu
    if mu == 0:
        return Term()
    fixed = context.received()

    def penalty(weights: Weights) -> Tensor:
        terms = [(weights[name] - fixed[name]).square().sum() for name in sorted(fixed)]
        return 0.5 * mu * torch.stack(terms).sum()

    return Term(penalty)


# By the name that a strategy's recipe gives, and by the name of a method that has an objective.
OBJECTIVES: Mapping[str, Objective] = {
    "plain": plain,
    "proximal": proximal,
    "controlled": controlled,
}
METHOD_OBJECTIVES: Mapping[str, Objective] = {"fedjudge": restraint}


def term_of(context: Context) -> Term:
    """What the strategy and the method ask of a device, as one term."""
    asked = [OBJECTIVES[build(context.spec).objective]]
    if own := METHOD_OBJECTIVES.get(context.spec.method.name):
        asked.append(own)
    return _sum([objective(context) for objective in asked])


def _sum(terms: list[Term]) -> Term:
    penalties = [term.penalty for term in terms if term.penalty is not no_penalty]

    def finish(delta: Weights, steps: int) -> None:
        for term in terms:
            term.finish(delta, steps)

    if len(penalties) < 2:
        return Term(penalties[0] if penalties else no_penalty, finish)

    def penalty(weights: Weights) -> Tensor | None:
        found = [value for one in penalties if (value := one(weights)) is not None]
        return torch.stack(found).sum() if found else None

    return Term(penalty, finish)

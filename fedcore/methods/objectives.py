"""Objectives of strategies: what a device minimises beside its task loss.

An objective takes a device before its first step and returns a loss term: the penalty of every step
and a function to call after training (``fedcore.methods.contract``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedcore.methods.contract import Context, LossTerm, Objective
from fedcore.methods.scaffold import controlled
from fedcore.methods.training import no_term
from fedcore.train.loop import Weights


def proximal(context: Context) -> LossTerm:
    """FedProx (Li et al., arXiv 1812.06127): ``mu / 2 * |w - w_global|^2``."""
    return distance_penalty(context, 0.5 * context.spec.strategy.proximal_mu)


def distance_penalty(context: Context, factor: float) -> LossTerm:
    """``factor * |w - w_received|^2`` over all trainable weights."""
    if factor == 0:
        return LossTerm()
    fixed = context.received()

    def penalty(weights: Weights) -> Tensor:
        terms = [(weights[name] - fixed[name]).square().sum() for name in sorted(fixed)]
        return factor * torch.stack(terms).sum()

    return LossTerm(penalty)


# By the objective of the strategy.
OBJECTIVES: Mapping[str, Objective] = {
    "plain": no_term,
    "proximal": proximal,
    "controlled": controlled,
}

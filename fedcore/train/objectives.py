"""What a device minimises beside its task loss, as values in one table.

An objective gets the received global weights once and returns the term to add at the current ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fedcore.spec import JobSpec
from fedcore.strategy.table import build

Weights = Mapping[str, Tensor]
Penalty = Callable[[Weights], Tensor | None]
Objective = Callable[[Weights], Penalty]


def _nothing(weights: Weights) -> None:
    del weights


def plain(anchor: Weights) -> Penalty:
    """The task loss alone."""
    del anchor
    return _nothing


def proximal(mu: float) -> Objective:
    """FedProx (Li et al., arXiv 1812.06127): ``mu / 2 * |w - w_global|^2``."""
    if mu == 0:
        return plain

    def objective(anchor: Weights) -> Penalty:
        fixed = {name: tensor.detach().clone() for name, tensor in anchor.items()}

        def penalty(weights: Weights) -> Tensor:
            terms = [(weights[name] - fixed[name]).square().sum() for name in sorted(fixed)]
            return 0.5 * mu * torch.stack(terms).sum()

        return penalty

    return objective


OBJECTIVES: dict[str, Callable[[JobSpec], Objective]] = {
    "plain": lambda _: plain,
    "proximal": lambda spec: proximal(spec.strategy.proximal_mu),
}


def objective_of(spec: JobSpec) -> Objective:
    """The objective that the specification's strategy asks of its devices."""
    return OBJECTIVES[build(spec).objective](spec)

"""What a device minimises beside its task loss, as values in tables by name.

An objective sees the device before its first step and returns a term: what to add to the loss at
the weights of every step, and what to do once training is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedcore.model.adapters import trainable_parameters
from fedcore.spec import JobSpec
from fedcore.strategy.table import build
from fedcore.train.loop import Penalty, Weights, Work, no_penalty
from fedcore.train.own import Own
from fedcore.train.telemetry import Hooks

Finish = Callable[[Weights, int], None]


def _nothing_to_do(delta: Weights, steps: int) -> None:
    del delta, steps


@dataclass(frozen=True)
class Context:
    """A device before its first step of round ``round_number``: the model holds what it received.

    ``work`` is what passes over its data take (``fedcore.train.passes``); ``spec`` the job as this
    device was given it.
    """

    spec: JobSpec
    work: Work
    round_number: int = 1
    own: Own = field(default_factory=Own)
    hooks: Hooks = field(default_factory=Hooks)

    def received(self) -> dict[str, Tensor]:
        """Copies of the received trainable weights, by artefact name, where the model is."""
        live = trainable_parameters(self.work.model)
        return {name: tensor.detach().clone() for name, tensor in live}


@dataclass(frozen=True)
class Term:
    """``penalty`` gives what is added to each step's mean loss at the live weights (None: nothing).

    ``finish`` is told, after the last step, how far the weights moved (fp32, CPU) and in how many
    steps; it is not called where training was stopped.
    """

    penalty: Penalty = no_penalty
    finish: Finish = _nothing_to_do


Objective = Callable[[Context], Term]


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
OBJECTIVES: Mapping[str, Objective] = {"plain": plain, "proximal": proximal}
METHOD_OBJECTIVES: Mapping[str, Objective] = {}


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

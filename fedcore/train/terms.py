"""What an objective is told, and what it answers: the device before its first step, and a term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from fedcore.model.adapters import shared_parameters
from fedcore.spec import JobSpec
from fedcore.train.kernels import Kernels
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
    device was given it; ``draw`` as ``Session.train`` has it.
    """

    spec: JobSpec
    work: Work
    round_number: int = 1
    own: Own = field(default_factory=Own)
    hooks: Hooks = field(default_factory=Hooks)
    draw: int = 0

    def received(self) -> dict[str, Tensor]:
        """Copies of the received weights that train, by artefact name, where the model is."""
        live = shared_parameters(self.work.model, self.spec.adapter.kind)
        return {name: tensor.detach().clone() for name, tensor in live}


@dataclass(frozen=True)
class Term:
    """``penalty`` gives what is added to each step's mean loss at the live weights (None: nothing).

    ``finish`` is told, after the last step, how far the weights moved (fp32, CPU) and in how many
    steps; it is not called where training was stopped. ``kernels`` compute the task loss where the
    method does so in another way than the job's options (None).
    """

    penalty: Penalty = no_penalty
    finish: Finish = _nothing_to_do
    kernels: Kernels | None = None


Objective = Callable[[Context], Term]

"""The interface of a client objective: its input (Context) and its result (LossTerm)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from fedcore.methods.distillation.bridge import TeacherSignal
from fedcore.model.adapters import shared_parameters
from fedcore.spec.job import JobSpec
from fedcore.train.kernels import Kernels
from fedcore.train.loop import Penalty, TrainingTask, Weights, no_penalty
from fedcore.train.telemetry import Hooks


@dataclass(frozen=True)
class DeviceState:
    """State of a job on a device beside the weights, and what the server sends with them.

    ``folder``: its private files of this job (None: it cannot store any). ``state``: the server's
    state before the round, if the strategy serves it. ``teacher``: the bridge and the parent's
    logits, in agglomerative jobs.
    """

    folder: Path | None = None
    state: Path | None = None
    teacher: TeacherSignal | None = None


Finish = Callable[[Weights, int], None]


def _nothing_to_do(delta: Weights, steps: int) -> None:
    del delta, steps


@dataclass(frozen=True)
class Context:
    """A device before its first step of round ``round_number``; the model has received weights.

    ``work``: the input of passes over its data (``fedcore.train.gradient_passes``). ``spec``: the
    job with this device's overrides. ``draw``: see ``Session.train``.
    """

    spec: JobSpec
    work: TrainingTask
    round_number: int = 1
    device_state: DeviceState = field(default_factory=DeviceState)
    hooks: Hooks = field(default_factory=Hooks)
    draw: int = 0

    def received(self) -> dict[str, Tensor]:
        """Copies of the received trainable weights, by artefact name, on the model's device."""
        live = shared_parameters(self.work.model, self.spec.adapter.family.kind)
        return {name: tensor.detach().clone() for name, tensor in live}


@dataclass(frozen=True)
class LossTerm:
    """What a method adds to training.

    ``penalty``: added to each step's mean loss, at the live weights (None: nothing). ``finish``:
    called after the last step with the change of the weights (fp32, CPU) and the number of steps;
    not called if training was stopped. ``kernels``: replace those of the job's options for the task
    loss (None: they do not).
    """

    penalty: Penalty = no_penalty
    finish: Finish = _nothing_to_do
    kernels: Kernels | None = None


Objective = Callable[[Context], LossTerm]

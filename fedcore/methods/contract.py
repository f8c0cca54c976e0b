"""What an objective is told, and what it answers: the device before its first step, and a term."""

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
    """What a device keeps of a job beside the weights, and what else the server sends it.

    ``folder`` holds its private files of this job (None: it has nowhere to keep any), ``state`` is
    the server's state before the round, where the strategy serves it, ``lesson`` what its parent
    teaches it where models speak to each other over bridge samples.
    """

    folder: Path | None = None
    state: Path | None = None
    teacher: TeacherSignal | None = None


Finish = Callable[[Weights, int], None]


def _nothing_to_do(delta: Weights, steps: int) -> None:
    del delta, steps


@dataclass(frozen=True)
class Context:
    """A device before its first step of round ``round_number``: the model holds what it received.

    ``work`` is what passes over its data take (``fedcore.train.gradient_passes``); ``spec`` the job
    as this device was given it; ``draw`` as ``Session.train`` has it.
    """

    spec: JobSpec
    work: TrainingTask
    round_number: int = 1
    device_state: DeviceState = field(default_factory=DeviceState)
    hooks: Hooks = field(default_factory=Hooks)
    draw: int = 0

    def received(self) -> dict[str, Tensor]:
        """Copies of the received weights that train, by artefact name, where the model is."""
        live = shared_parameters(self.work.model, self.spec.adapter.family.kind)
        return {name: tensor.detach().clone() for name, tensor in live}


@dataclass(frozen=True)
class LossTerm:
    """``penalty`` gives what is added to each step's mean loss at the live weights (None: nothing).

    ``finish`` is told, after the last step, how far the weights moved (fp32, CPU) and in how many
    steps; it is not called where training was stopped. ``kernels`` compute the task loss where the
    method does so in another way than the job's options (None).
    """

    penalty: Penalty = no_penalty
    finish: Finish = _nothing_to_do
    kernels: Kernels | None = None


Objective = Callable[[Context], LossTerm]

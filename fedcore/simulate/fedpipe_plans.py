"""FedPipe's plans for simulated devices: each is probed, then planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from fedcore.architecture.sizes import Architecture
from fedcore.compute.device import PRECISION_NAMES, pick_precision
from fedcore.errors import Fault, SpecError
from fedcore.hardware.profile import Hardware
from fedcore.methods.fedpipe_probe import sensitivity
from fedcore.methods.session import Session
from fedcore.model.load import resolve
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.fedpipe.fleet import plans
from fedcore.plan.fedpipe.types import Allocation
from fedcore.spec.job import JobSpec
from fedcore.spec.options.method import FEDPIPE
from fedcore.spec.overrides import Tailoring
from fedcore.train.datasets import Source
from fedcore.train.telemetry import Hooks

Told = Callable[[str, Allocation], None]


def by_fedpipe(
    spec: JobSpec,
    session: Session,
    devices: Mapping[str, Source],
    weights: Path,
    told: Told,
    hooks: Hooks,
) -> dict[str, Tailoring]:
    """Probe each device at these weights and plan it; {} where the job does not ask for it.

    ``devices`` in the order of their slots. Simulated devices have no hardware of their own: what
    bounds a plan is ``method.memory_budget_mb``. Raises SpecError where that is too little, and for
    a time budget.
    """
    if spec.method.name != FEDPIPE:
        return {}
    if spec.method.time_budget_s:
        message = "cannot be kept in a simulation, whose devices have no speed; leave it at 0"
        raise SpecError([Fault("method.time_budget_s", message)])
    sizes = Architecture.from_config(resolve(spec.model.name).config)
    scores = {
        name: sensitivity(session, spec, weights, source, slot, hooks)
        for slot, (name, source) in enumerate(devices.items())
    }
    precision = PRECISION_NAMES[pick_precision(spec.train.precision, session.device)]
    settled = replace(spec, train=replace(spec.train, precision=precision))
    hardware = Hardware(accelerator=session.device.type != "cpu")
    found = plans(settled, sizes, [candidate_of(spec, name, hardware) for name in devices], scores)
    for name, choice in found.items():
        told(name, choice)
    return {name: choice.tailoring(spec) for name, choice in found.items()}


def candidate_of(spec: JobSpec, name: str, hardware: Hardware) -> Candidate:
    """A device of unknown memory and speed; how many examples it has decides nothing."""
    longest = (spec.data.max_source_tokens, spec.data.max_target_tokens)
    return Candidate(name, hardware, 1, *longest, longest)

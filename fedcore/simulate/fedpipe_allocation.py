"""FedPipe for simulated devices: probe each device, then allocate its adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fedcore.architecture.sizes import Architecture
from fedcore.compute.device import PRECISION_NAMES, pick_precision
from fedcore.errors import Fault, SpecError
from fedcore.hardware.profile import Hardware
from fedcore.methods.fedpipe.probe import sensitivity
from fedcore.methods.session import Session
from fedcore.model.load import resolve
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.fedpipe.allocate import allocate_fleet
from fedcore.simulate.results import OnEvent, SimulationEvent
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import Tailoring
from fedcore.train.datasets import Source


def allocate_devices(
    spec: JobSpec,
    session: Session,
    devices: Mapping[str, Source],
    weights: Path,
    on_event: OnEvent,
) -> dict[str, Tailoring]:
    """Probe each device at these weights and allocate its adapters; overrides by device name.

    ``devices`` in the order of their slots. Simulated devices have no hardware of their own, so
    ``method.memory_budget_mb`` alone limits an allocation. Raises SpecError if it is too small, and
    for a time budget.
    """
    if spec.method.time_budget_s:
        message = "cannot be kept in a simulation, whose devices have no speed; leave it at 0"
        raise SpecError([Fault("method.time_budget_s", message)])
    sizes = Architecture.from_config(resolve(spec.model.name).config)
    scores = {
        name: sensitivity(session, spec, weights, source, slot)
        for slot, (name, source) in enumerate(devices.items())
    }
    precision = PRECISION_NAMES[pick_precision(spec.train.precision, session.device)]
    resolved = replace(spec, train=replace(spec.train, precision=precision))
    hardware = Hardware(accelerator=session.device.type != "cpu")
    candidates = [candidate_of(spec, name, hardware) for name in devices]
    allocations = allocate_fleet(resolved, sizes, candidates, scores)
    for name, allocation in allocations.items():
        on_event(SimulationEvent("planned", 0, name, allocation))
    return {name: allocation.overrides(spec) for name, allocation in allocations.items()}


def candidate_of(spec: JobSpec, name: str, hardware: Hardware) -> Candidate:
    """A device of unknown memory and speed; its number of examples does not matter."""
    longest = (spec.data.max_source_tokens, spec.data.max_target_tokens)
    return Candidate(name, hardware, 1, *longest, longest)

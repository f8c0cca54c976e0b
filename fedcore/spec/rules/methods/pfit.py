"""Rules of PFIT about its own options and others beside them."""

from __future__ import annotations

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import ADAPTERS, KIND_PATH
from fedcore.spec.rewards import fault_of, weights_fault
from fedcore.spec.rules.contract import Rules


def _reward_faults(spec: JobSpec) -> list[Fault]:
    """Rewards, weights, samples and steps that cannot be."""
    method, train, faults = spec.method, spec.train, []
    for word in method.rewards:
        if message := fault_of(word):
            faults.append(Fault("method.rewards", f"{word!r}: {message}"))
    for entry in method.weights:
        if message := weights_fault(method.rewards, entry):
            faults.append(Fault("method.weights", f"{entry!r}: {message}"))
    if not method.rewards:
        faults.append(Fault("method.rewards", "name at least one, such as overlap=1"))
    if method.baseline == "group" and method.samples < 2:
        message = "must be 2 or more with the baseline group, which compares a prompt's samples"
        faults.append(Fault("method.samples", message))
    if train.local_steps and method.supervised_steps >= train.local_steps:
        message = f"leaves no step for rewards ({train.local_steps} local steps); lower it"
        faults.append(Fault("method.supervised_steps", message))
    return faults


def _combination_faults(spec: JobSpec) -> list[Fault]:
    """What PFIT cannot be joined with, each with the reason."""
    faults = []
    family = spec.adapter.family
    if not family.anchors_policy:
        others = sorted(kind for kind, row in ADAPTERS.items() if row.anchors_policy)
        message = (
            f"must be {' or '.join(others)} with pfit, not {family.kind}: its anchor is a copy"
        )
        faults.append(Fault(KIND_PATH, f"{message} of all that trains"))
    if spec.participation.buffered:
        message = "must be synchronous with pfit: its anchor is the model that all started from"
        faults.append(Fault("participation.mode", message))
    if spec.strategy.family.measures_loss:
        message = f"{spec.strategy.name} weighs by a loss that pfit does not minimise; take another"
        faults.append(Fault("strategy.name", message))
    if spec.train.checkpointing:
        message = "saves nothing with pfit, whose passes run without dropout; leave it off"
        faults.append(Fault("train.checkpointing", message))
    if spec.train.micro_tokens:
        message = "does not bound samples, whose length nobody knows; set train.micro_batch"
        faults.append(Fault("train.micro_tokens", message))
    return faults


ROW = Rules((_reward_faults, _combination_faults))

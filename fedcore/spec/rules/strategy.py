"""Combinations that a job specification refuses: rules about the group ``strategy``."""

from __future__ import annotations

from collections.abc import Callable

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec


def _coordinates_must_stay(spec: JobSpec) -> list[Fault]:
    rule, name = spec.adapter.aggregation, spec.strategy.name
    if not spec.adapter.averaging.refactors:
        return []
    if spec.strategy.family.remembers_coordinates:
        message = (
            f"{name} remembers a number for every coordinate, and {rule} gives the factors new "
            "coordinates each round; take fedavg or fedprox, or average by fedit, ffa or fedex"
        )
        return [Fault("strategy.name", message)]
    return []


def _shares_need_a_mean(spec: JobSpec) -> list[Fault]:
    name, fold = spec.strategy.name, spec.strategy.fold
    if spec.strategy.family.needs_the_mean and not spec.strategy.takes_the_mean:
        message = f"{fold} ignores the shares that {name} gives the updates; take mean"
        return [Fault("strategy.fold", message)]
    return []


def _scaffold_needs_sgd(spec: JobSpec) -> list[Fault]:
    if not spec.strategy.family.serves_state:
        return []
    train, faults = spec.train, []
    if train.optimizer != "sgd":
        message = (
            "must be sgd with scaffold: its control variates are gradients, found from how far "
            "the weights moved"
        )
        faults.append(Fault("train.optimizer", message))
    if not train.local_steps:
        message = "must be above 0 with scaffold: all devices take equally many steps"
        faults.append(Fault("train.local_steps", message))
    if train.schedule != "constant":
        message = "must be constant with scaffold, which divides by the sum of all rates"
        faults.append(Fault("train.schedule", message))
    if train.warmup_steps:
        message = "must be 0 with scaffold, which divides by the sum of all rates"
        faults.append(Fault("train.warmup_steps", message))
    return faults


def _controls_need_whole_updates(spec: JobSpec) -> list[Fault]:
    """The server finds its control variate from what it averages."""
    if not spec.strategy.family.serves_state:
        return []
    faults = []
    if spec.participation.buffered:
        message = "must be synchronous with scaffold: stale control variates correct nothing"
        faults.append(Fault("participation.mode", message))
    if spec.strategy.clip_update_norm:
        message = "must be 0 with scaffold: devices count on the whole of their updates"
        faults.append(Fault("strategy.clip_update_norm", message))
    return faults


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (
    _coordinates_must_stay,
    _shares_need_a_mean,
    _scaffold_needs_sgd,
    _controls_need_whole_updates,
)

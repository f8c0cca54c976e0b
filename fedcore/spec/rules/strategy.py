"""Combinations that a job specification refuses: rules about the group ``strategy``."""

from __future__ import annotations

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.rules.contract import Rule


def _aggregation_faults(spec: JobSpec) -> list[Fault]:
    """Strategies that do not suit how the job aggregates updates."""
    strategy, rule, faults = spec.strategy, spec.adapter.aggregation, []
    if spec.adapter.averaging.refactors and strategy.family.remembers_coordinates:
        message = (
            f"{strategy.name} remembers a number for every coordinate, and {rule} gives the "
            "factors new coordinates each round; take fedavg or fedprox, or average by fedit, ffa "
            "or fedex"
        )
        faults.append(Fault("strategy.name", message))
    if strategy.family.needs_the_mean and not strategy.takes_the_mean:
        message = f"{strategy.fold} ignores the shares that {strategy.name} gives the updates"
        faults.append(Fault("strategy.fold", f"{message}; take mean"))
    return faults


def _scaffold_faults(spec: JobSpec) -> list[Fault]:
    """What SCAFFOLD's control variates need of training, and of the updates the server averages."""
    train, faults = spec.train, []
    if not spec.strategy.family.serves_state:
        return []
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
    if spec.participation.buffered:
        message = "must be synchronous with scaffold: stale control variates correct nothing"
        faults.append(Fault("participation.mode", message))
    if spec.strategy.clip_update_norm:
        message = "must be 0 with scaffold: devices count on the whole of their updates"
        faults.append(Fault("strategy.clip_update_norm", message))
    return faults


RULES: tuple[Rule, ...] = (_aggregation_faults, _scaffold_faults)

"""Combinations that a job specification refuses: rules about the group ``tree``."""

from __future__ import annotations

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.options.lowrank import LOW_RANK_RULES
from fedcore.spec.options.method import METHOD_PATH
from fedcore.spec.rules.contract import Rule
from fedcore.topology import entry_faults


def _tree_faults(spec: JobSpec) -> list[Fault]:
    """Entries that make no tree, then options that need more than a mean of clusters' means."""
    strategy, rule = spec.strategy, spec.adapter.aggregation
    faults = [Fault("tree.parents", message) for message in entry_faults(spec.tree.parents)]
    if not spec.tree.grown or spec.method.family.keeps_weights_on_device:
        return faults
    if spec.participation.buffered:
        message = "must be synchronous with a tree: a cluster's updates must come from one model"
        faults.append(Fault("participation.mode", message))
    if not strategy.takes_the_mean:
        message = f"must be mean with a tree: {strategy.fold} has to see every update"
        faults.append(Fault("strategy.fold", message))
    if strategy.family.reweights:
        message = f"{strategy.name} weighs each update apart, which a tree hides; take another"
        faults.append(Fault("strategy.name", message))
    if spec.adapter.averaging.needs_products:
        exact = [name for name, row in LOW_RANK_RULES.items() if not row.needs_products]
        why = "needs the product of each device's factors, which a tree hides"
        message = f"{rule} {why}; take {' or '.join(exact)}"
        faults.append(Fault("adapter.aggregation", message))
    if not spec.method.family.averages_in_trees:
        message = f"{spec.method.name} was made without a tree; leave one of them out"
        faults.append(Fault(METHOD_PATH, message))
    return faults


RULES: tuple[Rule, ...] = (_tree_faults,)

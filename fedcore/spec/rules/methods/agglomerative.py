"""Rules of agglomerative federated learning, where models stay and logits travel."""

from __future__ import annotations

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.spec.options.distill import INSTEAD, PACKAGED_BRIDGE
from fedcore.spec.options.strategy import StrategySpec
from fedcore.spec.options.wire import WireSpec
from fedcore.spec.rules.contract import Rules
from fedcore.topology import parents_of, star_faults


def _one_level(spec: JobSpec) -> list[Fault]:
    if len(spec.distill.models) < 2:
        return []
    message = f"a launched job has one level above the devices so far; name one model, or {INSTEAD}"
    return [Fault("distill.models", message)]


def _one_parent(spec: JobSpec) -> list[Fault]:
    if not spec.tree.grown:
        message = (
            "say who is above whom: CHILD=PARENT for each device, or auto; the parent is a device "
            f"with the role 'aggregator' and holds {' '.join(spec.distill.models[:1])}"
        )
        return [Fault("tree.parents", message)]
    messages = star_faults(parents_of(spec.tree.parents), spec.participation.devices)
    return [Fault("tree.parents", f"{message}, or {INSTEAD}") for message in messages]


def _bridge_anywhere(spec: JobSpec) -> list[Fault]:
    if spec.distill.bridge.partition(":")[0] == PACKAGED_BRIDGE:
        return []
    message = (
        "a launched job's devices make the bridge themselves, for a dataset or a file need not be "
        f"there: take {PACKAGED_BRIDGE} or {PACKAGED_BRIDGE}:clinic+law, or {INSTEAD}"
    )
    return [Fault("distill.bridge", message)]


def _levels(spec: JobSpec) -> list[Fault]:
    if spec.distill.models:
        return []
    return [Fault("distill.models", "name the model of each level above the devices, upwards")]


def _nothing_is_averaged(spec: JobSpec) -> list[Fault]:
    """What would change nothing, or has no meaning where no weights travel."""
    faults, adapter = [], spec.adapter
    if spec.participation.buffered:
        faults.append(Fault("participation.mode", "must be synchronous: a round climbs the tree"))
    if spec.participation.fraction < 1:
        message = "must be 1: a device keeps its own model, which nobody else trains meanwhile"
        faults.append(Fault("participation.fraction", message))
    if spec.strategy.name != StrategySpec().name:
        message = f"{spec.strategy.name} is about updates, and no update travels; take fedavg"
        faults.append(Fault("strategy.name", message))
    plain = adapter.aggregation == AdapterSpec().aggregation and not adapter.mixed
    if adapter.family.trains_low_rank_factors and not plain:
        message = "no adapters are averaged; leave rules, ranks, alphas and modules out"
        faults.append(Fault("adapter.aggregation", message))
    if spec.wire != WireSpec():
        message = "logits travel packed (distill.top_k), not by a chain; leave the group wire out"
        faults.append(Fault("wire.uplink", message))
    return faults


ROW = Rules((_levels, _nothing_is_averaged), on_launch=(_one_level, _one_parent, _bridge_anywhere))

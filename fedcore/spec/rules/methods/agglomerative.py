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


def _spec_faults(spec: JobSpec) -> list[Fault]:
    """Models of the levels, and options with no effect or no meaning where no weights travel."""
    faults, adapter = [], spec.adapter
    if not spec.distill.models:
        message = "name the model of each level above the devices, upwards"
        faults.append(Fault("distill.models", message))
    if spec.participation.buffered:
        faults.append(Fault("participation.mode", "must be synchronous: a round climbs the tree"))
    if spec.participation.fraction < 1:
        message = "must be 1: a device keeps its own model, which nobody else trains meanwhile"
        faults.append(Fault("participation.fraction", message))
    if spec.strategy.name != StrategySpec().name:
        message = f"{spec.strategy.name} is about updates, and no update travels; take fedavg"
        faults.append(Fault("strategy.name", message))
    averages = adapter.aggregation != AdapterSpec().aggregation or adapter.mixed
    if adapter.family.trains_low_rank_factors and averages:
        message = "no adapters are averaged; leave rules, ranks, alphas and modules out"
        faults.append(Fault("adapter.aggregation", message))
    if spec.wire != WireSpec():
        message = "logits travel packed (distill.top_k), not by a chain; leave the group wire out"
        faults.append(Fault("wire.uplink", message))
    return faults


def _launch_faults(spec: JobSpec) -> list[Fault]:
    """What devices cannot do yet, though a simulation can: several levels, a bridge from files."""
    faults, models = [], spec.distill.models
    if len(models) >= 2:
        message = "a launched job has one level above the devices so far; name one model"
        faults.append(Fault("distill.models", f"{message}, or {INSTEAD}"))
    if not spec.tree.grown:
        message = (
            "say who is above whom: CHILD=PARENT for each device, or auto; the parent is a device "
            f"with the role 'aggregator' and holds {' '.join(models[:1])}"
        )
        faults.append(Fault("tree.parents", message))
    else:
        for message in star_faults(parents_of(spec.tree.parents), spec.participation.devices):
            faults.append(Fault("tree.parents", f"{message}, or {INSTEAD}"))
    if spec.distill.bridge.partition(":")[0] != PACKAGED_BRIDGE:
        message = (
            "a launched job's devices make the bridge themselves, for a dataset or a file need not "
            f"be there: take {PACKAGED_BRIDGE} or {PACKAGED_BRIDGE}:clinic+law, or {INSTEAD}"
        )
        faults.append(Fault("distill.bridge", message))
    return faults


ROW = Rules((_spec_faults,), on_launch=(_launch_faults,))

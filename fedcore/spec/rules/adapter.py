"""Combinations that a job specification refuses: rules about the group ``adapter``."""

from __future__ import annotations

from fedcore.architecture.sizes import architecture_of
from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.spec.options.lowrank import LOW_RANK_RULES
from fedcore.spec.rules.contract import Rule


def _layer_faults(spec: JobSpec) -> list[Fault]:
    """Layers that train must exist, and be in fp32."""
    family = spec.adapter.family
    if not (family.trains_base_weights and family.freezes_base):
        return []
    faults, sizes = [], architecture_of(spec.model.name)
    if sizes is not None and spec.adapter.last_layers > sizes.decoder_layers:
        message = f"is more than the decoder has ({sizes.decoder_layers}); lower it"
        faults.append(Fault("adapter.last_layers", message))
    if spec.model.base_family.quantised:
        message = f"must be auto, bf16 or fp32 with layers: {spec.model.base} weights cannot train"
        faults.append(Fault("model.base", message))
    return faults


def _low_rank_faults(spec: JobSpec) -> list[Fault]:
    """LoRA options where no LoRA trains, and options per device that the averaging cannot mix."""
    adapter, default = spec.adapter, AdapterSpec()
    if not adapter.family.trains_low_rank_factors:
        names = ("aggregation", "ranks", "alphas", "modules", "pattern")
        wrong = [name for name in names if getattr(adapter, name) != getattr(default, name)]
        message = f"is about LoRA, but what trains is {str(adapter.family.kind)!r}; leave it out"
        return [Fault(f"adapter.{name}", message) for name in wrong]
    if adapter.averaging.refactors:
        return []
    others = [rule for rule, row in LOW_RANK_RULES.items() if row.refactors]
    message = (
        f"may not differ under {adapter.aggregation}, which averages A and B entry by entry; "
        f"take {' or '.join(others)}"
    )
    wrong = [name for name in ("ranks", "alphas", "modules") if getattr(adapter, name)]
    return [Fault(f"adapter.{name}", message) for name in wrong]


def _averaging_faults(spec: JobSpec) -> list[Fault]:
    """What cannot be joined with the rule that averages the factors, each with the reason."""
    rule, averaging, faults = spec.adapter.aggregation, spec.adapter.averaging, []
    if averaging.merges_into_base and spec.model.base_family.quantised:
        message = (
            f"cannot take in what {rule} folds into the base each round: "
            f"{spec.model.base} would round it away; take bf16 or fp32, or flexlora"
        )
        faults.append(Fault("model.base", message))
    if not averaging.needs_products:
        return faults
    if spec.participation.buffered:
        message = f"is not possible with {rule}: its updates must come from one model"
        faults.append(Fault("participation.mode", message))
    if spec.wire.step_chain is not None:
        message = f"must be fp32 with {rule}: the model it serves is no step from the last one"
        faults.append(Fault("wire.downlink", message))
    if averaging.refactors and spec.wire.top_k < 1:
        message = f"must be 1 with {rule}: what is left out fits no later update of its factors"
        faults.append(Fault("wire.top_k", message))
    if not spec.strategy.takes_the_mean:
        message = f"must be mean with {rule}: it averages products"
        faults.append(Fault("strategy.fold", message))
    return faults


RULES: tuple[Rule, ...] = (_layer_faults, _low_rank_faults, _averaging_faults)

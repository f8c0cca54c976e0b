"""What trains and how the devices' parts are averaged: the group ``adapter`` of a specification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedcore.errors import Fault
from fedcore.plan.flops import architecture_of
from fedcore.spec_checks import names, one_of, option, real, texts, whole

if TYPE_CHECKING:
    from fedcore.spec import JobSpec

ADAPTERS = ("lora", "bottleneck", "layers", "full")
OF_THE_MODEL = ("layers", "full")  # no adapter beside the weights: these themselves train
AVERAGING, REDISTRIBUTING = ("fedit", "ffa", "fedex"), ("flexlora", "stack")
AGGREGATIONS = (*AVERAGING, *REDISTRIBUTING)
MERGING = ("fedex", "stack")  # part of what was learned is folded into the base
LORA_TARGETS = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")
AUTO_RANK = "auto"


@dataclass(frozen=True)
class AdapterSpec:
    kind: str = option(
        "lora", one_of(*ADAPTERS), "What trains", "LoRA, bottlenecks, layers, or every weight"
    )
    width: int = option(
        32, whole(1, 4096), "Bottleneck width", "of the adapter after each feed-forward block", True
    )
    last_layers: int = option(
        2, whole(1, 1000), "Last decoder layers", "how many of them train and travel", True
    )
    rank: int = option(8, whole(1, 1024), "LoRA rank", "of the model that is served")
    alpha: float = option(16.0, real(0, 1e4, above=True), "LoRA alpha", "scale is alpha / rank")
    dropout: float = option(0.05, real(0, 0.9), "LoRA dropout", advanced=True)
    targets: tuple[str, ...] = option(
        ("q", "v"), names(LORA_TARGETS), "LoRA targets", "which matrices get an adapter", True
    )
    aggregation: str = option(
        "fedit",
        one_of(*AGGREGATIONS),
        "Averaging of A and B",
        "fedit: each apart; ffa: B alone; fedex, flexlora, stack: their product",
        True,
    )
    ranks: tuple[str, ...] = option(
        (),
        texts(),
        "Ranks of the devices",
        "in turn (4,8,16), by name or machine (pi=4), or auto; empty: all alike",
        True,
    )
    alphas: tuple[str, ...] = option(
        (),
        texts(),
        "Alphas of the devices",
        "as for ranks; empty: the same scale everywhere",
        True,
    )
    modules: tuple[str, ...] = option(
        (),
        texts(),
        "Targets of the devices",
        "as for ranks, joined by + (q+v,q+k+v+o); empty: all targets",
        True,
    )
    pattern: tuple[str, ...] = option(
        (),
        texts(),
        "Ranks of single matrices",
        "such as encoder.block.0.layer.0.SelfAttention.q=4; 0 leaves it out",
        True,
    )

    @property
    def scale(self) -> float:
        """What an adapter's product is multiplied with."""
        return self.alpha / self.rank

    @property
    def redistributes(self) -> bool:
        """Whether each round gives the factors new coordinates: nothing of a former one fits."""
        return self.kind == "lora" and self.aggregation in REDISTRIBUTING

    @property
    def mixed(self) -> bool:
        """Whether devices may train adapters of unlike ranks, scales or targets."""
        return bool(self.ranks or self.alphas or self.modules)


def _mixed_needs_products(spec: JobSpec) -> list[Fault]:
    adapter = spec.adapter
    if adapter.kind != "lora" or adapter.aggregation in REDISTRIBUTING:
        return []
    message = (
        f"may not differ under {adapter.aggregation}, which averages A and B entry by entry; "
        f"take {' or '.join(REDISTRIBUTING)}"
    )
    given = [name for name in ("ranks", "alphas", "modules") if getattr(adapter, name)]
    return [Fault(f"adapter.{name}", message) for name in given]


def _lora_only(spec: JobSpec) -> list[Fault]:
    adapter, plain = spec.adapter, AdapterSpec()
    if adapter.kind == "lora":
        return []
    names = ("aggregation", "ranks", "alphas", "modules", "pattern")
    wrong = [name for name in names if getattr(adapter, name) != getattr(plain, name)]
    message = f"is about LoRA, but what trains is {adapter.kind!r}; leave it out"
    return [Fault(f"adapter.{name}", message) for name in wrong]


def _merging_needs_a_base(spec: JobSpec) -> list[Fault]:
    if spec.adapter.aggregation in MERGING and spec.model.base in ("int8", "nf4"):
        message = (
            f"cannot take in what {spec.adapter.aggregation} folds into the base each round: "
            f"{spec.model.base} would round it away; take bf16 or fp32, or flexlora"
        )
        return [Fault("model.base", message)]
    return []


def _products_start_together(spec: JobSpec) -> list[Fault]:
    """What a rule on products cannot be joined with, each with the reason."""
    rule, faults = spec.adapter.aggregation, []
    if spec.adapter.kind != "lora" or rule in ("fedit", "ffa"):
        return []
    if spec.participation.buffered:
        message = f"is not possible with {rule}: its updates must come from one model"
        faults.append(Fault("participation.mode", message))
    if spec.wire.step_chain is not None:
        message = f"must be fp32 with {rule}: the model it serves is no step from the last one"
        faults.append(Fault("wire.downlink", message))
    if spec.adapter.redistributes and spec.wire.top_k < 1:
        message = f"must be 1 with {rule}: what is left out fits no later update of its factors"
        faults.append(Fault("wire.top_k", message))
    if spec.strategy.fold != "mean":
        message = f"must be mean with {rule}: it averages products"
        faults.append(Fault("strategy.fold", message))
    return faults


def _layers_are_the_bases_own(spec: JobSpec) -> list[Fault]:
    """Layers that train are there, and in fp32."""
    if spec.adapter.kind != "layers":
        return []
    faults, sizes = [], architecture_of(spec.model.name)
    if sizes is not None and spec.adapter.last_layers > sizes.decoder_layers:
        message = f"is more than the decoder has ({sizes.decoder_layers}); lower it"
        faults.append(Fault("adapter.last_layers", message))
    if spec.model.base in ("int8", "nf4"):
        message = f"must be auto, bf16 or fp32 with layers: {spec.model.base} weights cannot train"
        faults.append(Fault("model.base", message))
    return faults


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (
    _layers_are_the_bases_own,
    _mixed_needs_products,
    _lora_only,
    _merging_needs_a_base,
    _products_start_together,
)

"""What trains and how the devices' parts are averaged: the group ``adapter`` of a specification."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.spec.checks import integer, names, number, one_of, option, string_list

ADAPTERS = ("lora", "bottleneck", "layers", "full")
OF_THE_MODEL = ("layers", "full")  # no adapter beside the weights: these themselves train
AVERAGING, REFACTORING = ("fedit", "ffa", "fedex"), ("flexlora", "stack")
AGGREGATIONS = (*AVERAGING, *REFACTORING)
MERGING = ("fedex", "stack")  # part of what was learned is folded into the base
LORA_TARGETS = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")
AUTO_RANK = "auto"


@dataclass(frozen=True)
class AdapterSpec:
    kind: str = option(
        "lora", one_of(*ADAPTERS), "What trains", "LoRA, bottlenecks, layers, or every weight"
    )
    width: int = option(
        32,
        integer(1, 4096),
        "Bottleneck width",
        "of the adapter after each feed-forward block",
        True,
    )
    last_layers: int = option(
        2, integer(1, 1000), "Last decoder layers", "how many of them train and travel", True
    )
    rank: int = option(8, integer(1, 1024), "LoRA rank", "of the model that is served")
    alpha: float = option(16.0, number(0, 1e4, above=True), "LoRA alpha", "scale is alpha / rank")
    dropout: float = option(0.05, number(0, 0.9), "LoRA dropout", advanced=True)
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
        string_list(),
        "Ranks of the devices",
        "in turn (4,8,16), by name or machine (pi=4), or auto; empty: all alike",
        True,
    )
    alphas: tuple[str, ...] = option(
        (),
        string_list(),
        "Alphas of the devices",
        "as for ranks; empty: the same scale everywhere",
        True,
    )
    modules: tuple[str, ...] = option(
        (),
        string_list(),
        "Targets of the devices",
        "as for ranks, joined by + (q+v,q+k+v+o); empty: all targets",
        True,
    )
    pattern: tuple[str, ...] = option(
        (),
        string_list(),
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
        return self.kind == "lora" and self.aggregation in REFACTORING

    @property
    def mixed(self) -> bool:
        """Whether devices may train adapters of unlike ranks, scales or targets."""
        return bool(self.ranks or self.alphas or self.modules)

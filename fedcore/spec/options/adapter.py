"""What trains, and how the devices' parts are averaged: the group ``adapter`` of a specification.

``AdapterKind`` is the family of what trains. ``ADAPTERS`` says of each kind what a specification, a
form and the planner need to know; its costs, its files and its tensors are in
``fedcore.plan.cost.kinds``, ``fedcore.export`` and ``fedcore.model.kinds``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from fedcore.spec.checks import integer, names, number, one_of, option, string_list
from fedcore.spec.options.lowrank import LOW_RANK_RULES, LowRankFamily, LowRankRule

LORA_TARGETS = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")
AUTO_RANK = "auto"
KIND_PATH = "adapter.kind"  # as errors and forms name the option


class AdapterKind(StrEnum):
    LORA = "lora"
    BOTTLENECK = "bottleneck"
    LAYERS = "layers"
    FULL = "full"


@dataclass(frozen=True)
class AdapterFamily:
    """What is true of one kind of adapter.

    ``options``: those of the group ``adapter`` that no other kind reads.
    ``trains_low_rank_factors``: pairs A and B, averaged by a ``LowRankRule``.
    ``trains_base_weights``: weights of the model itself train and travel, so there is no adapter
    beside it. ``freezes_base``: some weights stay frozen and may be kept in fewer bytes.
    ``takes_personal_lora``: a device may train a LoRA of its own beside it. ``anchors_policy``: PPO
    can keep a copy of all that trains as its anchor.
    """

    kind: AdapterKind
    label: str
    note: str
    options: tuple[str, ...]
    trains_low_rank_factors: bool = False
    trains_base_weights: bool = False
    freezes_base: bool = True
    takes_personal_lora: bool = False
    anchors_policy: bool = False


ADAPTERS: Mapping[AdapterKind, AdapterFamily] = {
    row.kind: row
    for row in (
        AdapterFamily(
            AdapterKind.LORA,
            "LoRA adapter",
            "Trains small matrices only: about 1 % of the bytes.",
            (
                *("rank", "alpha", "dropout", "targets", "aggregation"),
                *("ranks", "alphas", "modules", "pattern"),
            ),
            trains_low_rank_factors=True,
            anchors_policy=True,
        ),
        AdapterFamily(
            AdapterKind.BOTTLENECK,
            "Bottleneck adapters",
            "Trains small layers after each feed-forward block; used by PFTT.",
            ("width",),
            takes_personal_lora=True,
        ),
        AdapterFamily(
            AdapterKind.LAYERS,
            "Last decoder layers",
            "Trains these layers in full and freezes the rest.",
            ("last_layers",),
            trains_base_weights=True,
            anchors_policy=True,
        ),
        AdapterFamily(
            AdapterKind.FULL,
            "All weights",
            "Trains the whole model: more memory, far more traffic.",
            (),
            trains_base_weights=True,
            freezes_base=False,
        ),
    )
}


@dataclass(frozen=True)
class AdapterSpec:
    kind: str = option(
        "lora",
        one_of(*map(str, AdapterKind)),
        "Trainable part",
        "LoRA, bottlenecks, layers, or every weight",
    )
    width: int = option(
        32,
        integer(1, 4096),
        "Bottleneck width",
        "of the adapter after each feed-forward block",
        True,
    )
    last_layers: int = option(
        2,
        integer(1, 1000),
        "Last decoder layers",
        "number of layers that are trained and sent",
        True,
    )
    rank: int = option(8, integer(1, 1024), "LoRA rank", "of the served model")
    alpha: float = option(16.0, number(0, 1e4, above=True), "LoRA alpha", "scale is alpha / rank")
    dropout: float = option(0.05, number(0, 0.9), "LoRA dropout", advanced=True)
    targets: tuple[str, ...] = option(
        ("q", "v"), names(LORA_TARGETS), "LoRA targets", "matrices that get an adapter", True
    )
    aggregation: str = option(
        "fedit",
        one_of(*map(str, LowRankRule)),
        "How LoRA matrices are averaged",
        "fedit: A and B separately; ffa: B only; fedex, flexlora, stack: their product",
        True,
    )
    ranks: tuple[str, ...] = option(
        (),
        string_list(),
        "Ranks per device",
        "in turn (4,8,16), by name or machine (pi=4), or auto; empty: all equal",
        True,
    )
    alphas: tuple[str, ...] = option(
        (),
        string_list(),
        "Alphas per device",
        "as for ranks; empty: the same scale on every device",
        True,
    )
    modules: tuple[str, ...] = option(
        (),
        string_list(),
        "Targets per device",
        "as for ranks, joined by + (q+v,q+k+v+o); empty: all targets",
        True,
    )
    pattern: tuple[str, ...] = option(
        (),
        string_list(),
        "Ranks per matrix",
        "such as encoder.block.0.layer.0.SelfAttention.q=4; 0 leaves it out",
        True,
    )

    @property
    def family(self) -> AdapterFamily:
        """What is true of its kind."""
        return ADAPTERS[AdapterKind(self.kind)]

    @property
    def averaging(self) -> LowRankFamily:
        """How its updates are averaged: entry by entry where no low-rank factors train."""
        by_rule = self.family.trains_low_rank_factors
        return LOW_RANK_RULES[LowRankRule(self.aggregation) if by_rule else LowRankRule.FEDIT]

    @property
    def scale(self) -> float:
        """What an adapter's product is multiplied with."""
        return self.alpha / self.rank

    @property
    def mixed(self) -> bool:
        """Whether devices may train adapters of unlike ranks, scales or targets."""
        return bool(self.ranks or self.alphas or self.modules)

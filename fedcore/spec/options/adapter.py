"""What trains, and how the devices' parts are averaged: the group ``adapter`` of a specification.

``AdapterKind`` is the family of what trains. ``ADAPTERS`` says of each kind what a specification, a
form and the planner need to know; its costs, its files and its tensors are in
``fedcore.plan.cost.kinds``, ``fedcore.export`` and ``fedcore.model.kinds``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedcore.families import MemberName
from fedcore.spec.checks import integer, names, number, one_of, option, string_list
from fedcore.spec.options.lowrank import LOW_RANK_RULES, LowRankFamily, LowRankRule

LORA_TARGETS = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")
AUTO_RANK = "auto"
KIND_PATH = "adapter.kind"  # as errors and forms name the option


class AdapterKind(MemberName):
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
        "Which weights train: adapters, the last decoder layers, or all.",
    )
    width: int = option(
        32,
        integer(1, 4096),
        "Bottleneck width",
        "Width of the adapter after each feed-forward block.",
        True,
    )
    last_layers: int = option(
        2,
        integer(1, 1000),
        "Last decoder layers",
        "Number of decoder layers that train and travel.",
        True,
    )
    rank: int = option(8, integer(1, 1024), "LoRA rank", "Rank of the adapter that is served.")
    alpha: float = option(
        16.0,
        number(0, 1e4, above=True),
        "LoRA alpha",
        "The adapter's scale is alpha divided by rank.",
    )
    dropout: float = option(
        0.05,
        number(0, 0.9),
        "LoRA dropout",
        "Dropout on the input of the LoRA factors.",
        advanced=True,
    )
    targets: tuple[str, ...] = option(
        ("q", "v"), names(LORA_TARGETS), "LoRA targets", "Matrices that get an adapter.", True
    )
    aggregation: str = option(
        "fedit",
        one_of(*map(str, LowRankRule)),
        "How LoRA matrices are averaged",
        "Factors are averaged separately (fedit), B alone (ffa), or as products.",
        True,
    )
    ranks: tuple[str, ...] = option(
        (),
        string_list(),
        "Ranks per device",
        "In turn (4,8,16), by name or machine (pi=4), or auto; empty: all are equal.",
        True,
    )
    alphas: tuple[str, ...] = option(
        (),
        string_list(),
        "Alphas per device",
        "Given like ranks; empty: every device has the same scale.",
        True,
    )
    modules: tuple[str, ...] = option(
        (),
        string_list(),
        "Targets per device",
        "Given like ranks, joined by + (q+v,q+k+v+o); empty: all targets.",
        True,
    )
    pattern: tuple[str, ...] = option(
        (),
        string_list(),
        "Ranks per matrix",
        "Given as encoder.block.0.layer.0.SelfAttention.q=4; rank 0 leaves a matrix out.",
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

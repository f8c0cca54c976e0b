"""Rules for averaging the factors of LoRA adapters: the family ``LowRankRule``.

``mean(B) mean(A)`` is not ``mean(B A)``; the rules differ in what they do about it. This is what a
specification, a form and the planner need to know of each. The arithmetic is in
``fedcore.aggregation.lowrank``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedcore.families import MemberName


class LowRankRule(MemberName):
    FEDIT = "fedit"
    FFA = "ffa"
    FEDEX = "fedex"
    FLEXLORA = "flexlora"
    STACK = "stack"


@dataclass(frozen=True)
class LowRankFamily:
    """What one rule does with the factors A (rank, in) and B (out, rank).

    ``frozen_factor``: the factor that keeps its start and never travels. ``needs_products``: the
    product ``B A`` of every device is formed, so all must start from one model and each must be
    seen. ``refactors``: every round serves factors with new coordinates, so the devices' ranks may
    differ and no state of an earlier round fits. ``merges_into_base``: a part of what was learned
    goes into the base model. ``shardable``: a fold may be cut into shards.
    """

    rule: LowRankRule
    label: str
    note: str
    frozen_factor: str | None = None
    needs_products: bool = False
    refactors: bool = False
    merges_into_base: bool = False
    shardable: bool = False

    @property
    def states_scale(self) -> bool:
        """Whether the global adapter's metadata holds the scale of its product."""
        return self.needs_products or self.frozen_factor is not None

    @property
    def fits_any_device(self) -> bool:
        """Whether ranks may differ and the base stays as it is, so that it may be quantised."""
        return self.refactors and not self.merges_into_base


LOW_RANK_RULES: Mapping[LowRankRule, LowRankFamily] = {
    row.rule: row
    for row in (
        LowRankFamily(
            LowRankRule.FEDIT,
            "FedIT",
            "Averages A and B separately: cheap, but not exact.",
            shardable=True,
        ),
        LowRankFamily(
            LowRankRule.FFA,
            "FFA-LoRA",
            "Freezes A and averages B: exact, half the bytes.",
            frozen_factor="A",
        ),
        LowRankFamily(
            LowRankRule.FEDEX,
            "FedEx-LoRA",
            "Averages A and B separately and adds the remaining error to the base model. Exact.",
            needs_products=True,
            merges_into_base=True,
        ),
        LowRankFamily(
            LowRankRule.FLEXLORA,
            "FlexLoRA",
            "Averages the products, truncated by SVD; ranks may differ.",
            needs_products=True,
            refactors=True,
        ),
        LowRankFamily(
            LowRankRule.STACK,
            "Stacked",
            "Stacks all factors: exact; ranks may differ.",
            needs_products=True,
            refactors=True,
            merges_into_base=True,
        ),
    )
}

"""The options that say which devices fold the updates of others: the group ``tree``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedcore.errors import Fault
from fedcore.spec_checks import option, texts
from fedcore.spec_distill import AGGLOMERATIVE
from fedcore.spec_strategy import WEIGHING
from fedcore.tree import AUTO, entry_faults

if TYPE_CHECKING:
    from fedcore.spec import JobSpec

EXACT_RULES = ("fedit", "ffa")  # those whose average of averages is the average


@dataclass(frozen=True)
class TreeSpec:
    parents: tuple[str, ...] = option(
        (),
        texts(),
        "Who folds whose updates",
        "CHILD=PARENT by device name, or auto (aggregator devices share out the others); "
        "empty: the server folds all",
        True,
    )

    @property
    def grown(self) -> bool:
        """Whether any device folds for others."""
        return bool(self.parents)

    @property
    def auto(self) -> bool:
        return self.parents == (AUTO,)


def _entries(spec: JobSpec) -> list[Fault]:
    return [Fault("tree.parents", message) for message in entry_faults(spec.tree.parents)]


def _means_of_means(spec: JobSpec) -> list[Fault]:
    """What a mean of clusters' means is not the same for, each with the reason."""
    if not spec.tree.grown or spec.method.name == AGGLOMERATIVE:
        return []
    faults, strategy, rule = [], spec.strategy, spec.adapter.aggregation
    if spec.participation.buffered:
        message = "must be synchronous with a tree: a cluster's updates must come from one model"
        faults.append(Fault("participation.mode", message))
    if strategy.fold != "mean":
        message = f"must be mean with a tree: {strategy.fold} has to see every update"
        faults.append(Fault("strategy.fold", message))
    if strategy.name in WEIGHING:
        message = f"{strategy.name} weighs each update apart, which a tree hides; take another"
        faults.append(Fault("strategy.name", message))
    if spec.adapter.kind == "lora" and rule not in EXACT_RULES:
        why = "needs the product of each device's factors, which a tree hides"
        message = f"{rule} {why}; take {' or '.join(EXACT_RULES)}"
        faults.append(Fault("adapter.aggregation", message))
    if spec.method.name != "none":
        message = f"{spec.method.name} was made without a tree; leave one of them out"
        faults.append(Fault("method.name", message))
    return faults


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (_entries, _means_of_means)

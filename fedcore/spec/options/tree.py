"""The options that say which devices fold the updates of others: the group ``tree``."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.spec.checks import option, string_list
from fedcore.topology import AUTO


@dataclass(frozen=True)
class TreeSpec:
    parents: tuple[str, ...] = option(
        (),
        string_list(),
        "Aggregation tree",
        "CHILD=PARENT by device name, or auto (spread over the aggregators); "
        "empty: the server aggregates all.",
        True,
    )

    @property
    def grown(self) -> bool:
        """Whether any device folds for others."""
        return bool(self.parents)

    @property
    def auto(self) -> bool:
        return self.parents == (AUTO,)

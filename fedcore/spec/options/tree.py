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

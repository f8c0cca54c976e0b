"""What a job does beyond training and averaging: the group ``method`` of a specification.

A method is one row of ``METHODS``; its options say in their help which method they belong to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedcore import spec_fedpipe
from fedcore.errors import Fault
from fedcore.spec_checks import one_of, option, real

if TYPE_CHECKING:
    from fedcore.spec import JobSpec

METHODS = ("none", "fedjudge", "fedpipe")


@dataclass(frozen=True)
class MethodSpec:
    name: str = option("none", one_of(*METHODS), "Method", "none: plain federated training")
    restraint: float = option(
        0.5,
        real(0, 1e4),
        "Restraint",
        "FedJudge: how strongly weights that matter to all are held; 0: not at all",
        True,
    )
    memory_budget_mb: float = option(
        0.0,
        real(0, 1e9),
        "Memory budget, MB",
        "FedPipe: a device plans with no more; 0: what it has",
        True,
    )
    time_budget_s: float = option(
        0.0,
        real(0, 1e8),
        "Time budget, s",
        "FedPipe: of local training in a round; 0: none",
        True,
    )


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (spec_fedpipe.faults,)

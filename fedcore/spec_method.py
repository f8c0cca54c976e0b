"""What a job does beyond training and averaging: the group ``method`` of a specification.

A method is one row of ``METHODS``; its options say in their help which method they belong to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedcore.errors import Fault
from fedcore.spec_checks import one_of, option

if TYPE_CHECKING:
    from fedcore.spec import JobSpec

METHODS = ("none",)


@dataclass(frozen=True)
class MethodSpec:
    name: str = option("none", one_of(*METHODS), "Method", "none: plain federated training")


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = ()

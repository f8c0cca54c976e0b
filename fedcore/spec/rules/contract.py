"""Rules about combinations of options: a specification in, its errors out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec

Rule = Callable[[JobSpec], list[Fault]]


@dataclass(frozen=True)
class Rules:
    """What one method refuses in every job, and what in addition in a job that is launched.

    A simulation runs what only ``on_launch`` refuses.
    """

    always: tuple[Rule, ...] = ()
    on_launch: tuple[Rule, ...] = ()

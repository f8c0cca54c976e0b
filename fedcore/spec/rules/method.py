"""Combinations that a job specification refuses: rules about the group ``method``."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.options.method import OF_METHOD
from fedcore.spec.rules import fedpipe, pfit, pftt


def _of_another_method(spec: JobSpec) -> list[Fault]:
    """Options that somebody set, though the job's method does not read them."""
    plain, name = type(spec)(), spec.method.name
    others = [path for path, owner in OF_METHOD.items() if owner != name]
    wrong = [path for path in others if attrgetter(path)(spec) != attrgetter(path)(plain)]
    message = "is only for the method {}, but this job's is {}; leave one out or change the other"
    return [Fault(path, message.format(OF_METHOD[path], name)) for path in wrong]


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (
    _of_another_method,
    fedpipe.faults,
    *pfit.RULES,
    *pftt.RULES,
)

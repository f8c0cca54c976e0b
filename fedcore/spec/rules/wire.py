"""Combinations that a job specification refuses: rules about the group ``wire``."""

from __future__ import annotations

from collections.abc import Callable

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.options.wire import AUTO


def _top_k_of_what(spec: JobSpec) -> list[Fault]:
    if spec.wire.top_k < 1 and spec.wire.uplink == AUTO:
        message = "says how much of an update is sent, but auto chooses that; name the uplink"
        return [Fault("wire.top_k", message)]
    return []


def _top_k_needs_feedback(spec: JobSpec) -> list[Fault]:
    if spec.wire.top_k < 1 and not spec.wire.error_feedback:
        message = "the numbers that top-k leaves out would be lost for good; switch it on"
        return [Fault("wire.error_feedback", message)]
    return []


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (_top_k_of_what, _top_k_needs_feedback)

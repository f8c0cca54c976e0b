"""Combinations that a job specification refuses: rules about the group ``wire``."""

from __future__ import annotations

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.options.wire import AUTO
from fedcore.spec.rules.contract import Rule


def _sparsity_faults(spec: JobSpec) -> list[Fault]:
    """What a top-k uplink needs beside it."""
    wire, faults = spec.wire, []
    if wire.top_k >= 1:
        return []
    if wire.uplink == AUTO:
        message = "says how much of an update is sent, but auto chooses that; name the uplink"
        faults.append(Fault("wire.top_k", message))
    if not wire.error_feedback:
        message = "the numbers that top-k leaves out would be lost for good; switch it on"
        faults.append(Fault("wire.error_feedback", message))
    return faults


RULES: tuple[Rule, ...] = (_sparsity_faults,)

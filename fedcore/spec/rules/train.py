"""Combinations that a job specification refuses: rules about the group ``train``."""

from __future__ import annotations

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.rules.contract import Rule


def _training_faults(spec: JobSpec) -> list[Fault]:
    """A warm-up, a base precision or a token budget that training cannot work with."""
    train, faults = spec.train, []
    if train.local_steps and train.warmup_steps > train.local_steps:
        message = f"is longer than the round ({train.local_steps} local steps); lower it"
        faults.append(Fault("train.warmup_steps", message))
    if not spec.adapter.family.freezes_base and not spec.model.base_family.follows_training:
        message = "is about frozen weights, but with full training none is; leave it at auto"
        faults.append(Fault("model.base", message))
    longest = spec.data.max_source_tokens + spec.data.max_target_tokens
    if 0 < train.micro_tokens < longest:
        message = f"holds not even the longest example ({longest} tokens); raise it, or give 0"
        faults.append(Fault("train.micro_tokens", message))
    return faults


RULES: tuple[Rule, ...] = (_training_faults,)

"""Combinations that a job specification refuses: rules about the group ``train``."""

from __future__ import annotations

from collections.abc import Callable

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec


def _warmup_fits(spec: JobSpec) -> list[Fault]:
    train = spec.train
    if train.local_steps and train.warmup_steps > train.local_steps:
        message = f"is longer than the round ({train.local_steps} local steps); lower it"
        return [Fault("train.warmup_steps", message)]
    return []


def _full_keeps_every_weight(spec: JobSpec) -> list[Fault]:
    if not spec.adapter.family.freezes_base and not spec.model.base_family.follows_training:
        message = "is about frozen weights, but with full training none is; leave it at auto"
        return [Fault("model.base", message)]
    return []


def _tokens_hold_an_example(spec: JobSpec) -> list[Fault]:
    longest = spec.data.max_source_tokens + spec.data.max_target_tokens
    if 0 < spec.train.micro_tokens < longest:
        message = f"holds not even the longest example ({longest} tokens); raise it, or give 0"
        return [Fault("train.micro_tokens", message)]
    return []


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (
    _warmup_fits,
    _full_keeps_every_weight,
    _tokens_hold_an_example,
)

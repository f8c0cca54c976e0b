"""A candidate device of a round, and how many steps it would train."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedcore.hardware.links import Link
from fedcore.hardware.profile import Hardware
from fedcore.spec.job import JobSpec


@dataclass(frozen=True)
class Candidate:
    """A device that could take part in a job.

    ``source`` and ``target``: tokens of its mean example; ``longest``: tokens (source, target) of
    its longest. ``mfu``: the MFU that it reached in its last job.
    """

    name: str
    hardware: Hardware
    examples: int
    source: float
    target: float
    longest: tuple[float, float]
    link: Link | None = None
    mfu: float | None = None


def validation_examples(spec: JobSpec, examples: int) -> int:
    """Examples that a device sets aside for validation."""
    share = math.ceil(examples * spec.data.validation_fraction)
    return min(spec.data.max_validation_examples, share)


def at_once(spec: JobSpec, tokens: float) -> int:
    """Upper limit of a micro-batch by the job's options, for examples of that many tokens."""
    train = spec.train
    most = min(train.batch_size, train.micro_batch or train.batch_size)
    return min(most, max(1, int(train.micro_tokens // tokens))) if train.micro_tokens else most


def steps_of(spec: JobSpec, device: Candidate) -> int:
    """Optimizer steps of a device in a round."""
    training = max(1, device.examples - validation_examples(spec, device.examples))
    batches = -(-training // spec.train.batch_size)
    per_epoch = -(-batches // spec.train.accumulation)
    return spec.train.local_steps or spec.train.local_epochs * per_epoch

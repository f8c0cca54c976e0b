"""Batches of a device's round: which examples, in which order, padded to the longest of a batch."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedcore.spec_train import TrainSpec
from fedcore.train.data import Example, pad

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Tensors of shape (examples, longest): ids and mask of the source, inputs and labels.

    ``lengths`` are the true (source, target) token counts; labels are -100 where padded.
    """

    input_ids: Tensor
    attention_mask: Tensor
    decoder_input_ids: Tensor
    labels: Tensor
    lengths: tuple[tuple[int, int], ...]

    @property
    def tokens(self) -> int:
        """Source and target tokens, padding not counted."""
        return sum(source + target for source, target in self.lengths)

    @property
    def target_tokens(self) -> int:
        return sum(target for _, target in self.lengths)


@dataclass(frozen=True)
class Signs:
    """The token ids a batch needs: padding, and what the decoder starts with."""

    pad: int
    start: int

    @classmethod
    def of(cls, config: Any) -> Signs:
        pad_id = config.pad_token_id or 0
        start = getattr(config, "decoder_start_token_id", None)
        return cls(pad_id, pad_id if start is None else start)


def collate(examples: Sequence[Example], signs: Signs, device: torch.device) -> Batch:
    """Stack examples, filling at the right up to the longest of them."""
    source = torch.from_numpy(pad([item.source for item in examples], signs.pad))
    labels = torch.from_numpy(pad([item.target for item in examples], IGNORED))
    lengths = tuple(item.lengths for item in examples)
    widths = torch.tensor([length for length, _ in lengths])
    mask = (torch.arange(source.shape[1])[None, :] < widths[:, None]).long()
    shifted = torch.full_like(labels, signs.start)
    shifted[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, signs.pad)
    on = [tensor.to(device, non_blocking=True) for tensor in (source, mask, shifted, labels)]
    return Batch(on[0], on[1], on[2], on[3], lengths)


def steps_of(train: TrainSpec, examples: int) -> int:
    """Optimizer steps of a round: as given, or those of ``local_epochs`` passes."""
    per_epoch = math.ceil(math.ceil(examples / train.batch_size) / train.accumulation)
    return train.local_steps or train.local_epochs * per_epoch


def groups(train: TrainSpec, examples: int, seed: int) -> Iterator[list[list[int]]]:
    """Endless groups of ``accumulation`` batches of row numbers, each epoch freshly shuffled.

    A group never spans two epochs; the last one of an epoch may be smaller.
    """
    rng = random.Random(seed)
    rows = list(range(examples))
    while True:
        rng.shuffle(rows)
        size = train.batch_size
        batches = [rows[i : i + size] for i in range(0, examples, size)]
        for i in range(0, len(batches), train.accumulation):
            yield batches[i : i + train.accumulation]

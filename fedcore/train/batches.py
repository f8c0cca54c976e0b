"""Batches of a device's round: their order, and tensors padded to the longest example."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedcore.spec.options.train import TrainSpec
from fedcore.train.tokenization import TokenizedExample, pad

IGNORED = -100
Lengths = Sequence[tuple[int, int]]
Batching = Callable[[random.Random, Sequence[int], Lengths, int], list[list[int]]]


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
class SpecialTokens:
    """The token ids of padding and of the decoder's start."""

    pad: int
    start: int

    @classmethod
    def of(cls, config: Any) -> SpecialTokens:
        pad_id = config.pad_token_id or 0
        start = getattr(config, "decoder_start_token_id", None)
        return cls(pad_id, pad_id if start is None else start)


def collate(
    examples: Sequence[TokenizedExample], tokens: SpecialTokens, device: torch.device
) -> Batch:
    """Stack examples, filling at the right up to the longest of them."""
    source = torch.from_numpy(pad([item.source for item in examples], tokens.pad))
    labels = torch.from_numpy(pad([item.target for item in examples], IGNORED))
    lengths = tuple(item.lengths for item in examples)
    widths = torch.tensor([length for length, _ in lengths])
    mask = (torch.arange(source.shape[1])[None, :] < widths[:, None]).long()
    shifted = torch.full_like(labels, tokens.start)
    shifted[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, tokens.pad)
    on = [tensor.to(device, non_blocking=True) for tensor in (source, mask, shifted, labels)]
    return Batch(on[0], on[1], on[2], on[3], lengths)


def forward(model: Any, batch: Batch, precision: torch.dtype) -> Tensor:
    """Logits (examples, target positions, vocabulary); products in ``precision``."""
    with torch.autocast(batch.labels.device.type, precision, precision != torch.float32):
        logits: Tensor = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            decoder_input_ids=batch.decoder_input_ids,
            use_cache=False,
        ).logits
    return logits


def token_losses(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy in nats of each target position, fp32; 0 where padded."""
    flat = logits.float().view(-1, logits.shape[-1])
    return cross_entropy(flat, batch.labels.view(-1), ignore_index=IGNORED, reduction="none")


def steps_of(train: TrainSpec, examples: int) -> int:
    """Optimizer steps of a round: as given, or those of ``local_epochs`` passes."""
    per_epoch = math.ceil(math.ceil(examples / train.batch_size) / train.accumulation)
    return train.local_steps or train.local_epochs * per_epoch


def groups(train: TrainSpec, lengths: Lengths, seed: int) -> Iterator[list[list[int]]]:
    """Endless groups of ``accumulation`` batches of row numbers, each epoch freshly shuffled.

    ``lengths`` are those of the examples, in tokens. A group never spans two epochs; the last one
    of an epoch may be smaller.
    """
    rng = random.Random(seed)
    draw = BATCHINGS[train.batching]
    rows = list(range(len(lengths)))
    while True:
        rng.shuffle(rows)
        batches = draw(rng, rows, lengths, train.batch_size)
        for i in range(0, len(batches), train.accumulation):
            yield batches[i : i + train.accumulation]


def _as_they_come(
    rng: random.Random, rows: Sequence[int], lengths: Lengths, size: int
) -> list[list[int]]:
    del rng, lengths
    return [list(rows[i : i + size]) for i in range(0, len(rows), size)]


def _alike(rng: random.Random, rows: Sequence[int], lengths: Lengths, size: int) -> list[list[int]]:
    """Sorted within pools of many batches, so that an epoch still comes in a random order."""
    batches: list[list[int]] = []
    for i in range(0, len(rows), POOL * size):
        pool = sorted(rows[i : i + POOL * size], key=lambda row: sum(lengths[row]))
        batches += _as_they_come(rng, pool, lengths, size)
    rng.shuffle(batches)
    return batches


POOL = 50  # batches
BATCHINGS: Mapping[str, Batching] = {"random": _as_they_come, "length": _alike}

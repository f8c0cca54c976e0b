"""Kernels: the ways to compute the loss of a batch, in one table.

``plain`` runs the modules of transformers on padded tensors; ``fast`` runs Edgewise's own pass over
the same modules (``fedcore.model.fast``), on a CPU. Both give the sum of the tokens' cross-entropy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from fedcore.compute.speed import prefers_onednn
from fedcore.model.fast.dropout import DropoutStream
from fedcore.model.fast.forward import ForwardSettings, Rows, decode, loss_sum, supports
from fedcore.model.fast.linear import cast, onednn
from fedcore.train.batches import (
    IGNORED,
    Batch,
    Lengths,
    SpecialTokens,
    collate,
    forward,
    token_losses,
)
from fedcore.train.tokenization import TokenizedExample


@dataclass(frozen=True)
class KernelContext:
    """What a forward pass needs. ``seed`` sets what ``dropout``, the base model's, drops."""

    model: Any
    device: torch.device
    precision: torch.dtype
    dropout: float
    checkpointing: bool
    seed: int


class Kernels(Protocol):
    """One way to compute the loss of some examples; ``draw`` numbers the batches of a round."""

    def load(self, examples: Sequence[TokenizedExample]) -> Any:
        """The examples as tensors."""

    def forward(self, batch: Any, draw: int) -> Tensor:
        """What the loss is computed from."""

    def loss(self, out: Tensor, batch: Any) -> Tensor:
        """Sum of the cross-entropy of all target tokens (nats, fp32)."""

    def logits(self, out: Tensor, batch: Any) -> Tensor:
        """(target tokens, vocabulary), fp32: one example after the other, padding left out."""


class Plain:
    def __init__(self, context: KernelContext) -> None:
        self._context, self._tokens = context, SpecialTokens.of(context.model.config)
        if context.checkpointing:
            context.model.activation_checkpointing_enable({"use_reentrant": False})
        elif any(getattr(m, "gradient_checkpointing", False) for m in context.model.modules()):
            context.model.activation_checkpointing_disable()

    def load(self, examples: Sequence[TokenizedExample]) -> Batch:
        return collate(examples, self._tokens, self._context.device)

    def forward(self, batch: Batch, draw: int) -> Tensor:
        del draw
        return forward(self._context.model, batch, self._context.precision)

    def loss(self, out: Tensor, batch: Batch) -> Tensor:
        return token_losses(out, batch).sum()

    def logits(self, out: Tensor, batch: Batch) -> Tensor:
        return out[batch.labels != IGNORED].float()


@dataclass(frozen=True)
class Sentences:
    """Examples one after the other; ``labels`` (target tokens)."""

    source: Rows
    shifted: Rows
    labels: Tensor


class Fast:
    def __init__(self, context: KernelContext) -> None:
        unwrapped = getattr(context.model, "get_base_model", None)
        self._model = unwrapped() if unwrapped else context.model
        self._context, self._start = context, SpecialTokens.of(context.model.config).start
        deterministic = torch.are_deterministic_algorithms_enabled()  # no choice by measurement
        dense = onednn if not deterministic and prefers_onednn() else linear
        self._settings = ForwardSettings(context.precision, context.checkpointing, dense)

    def load(self, examples: Sequence[TokenizedExample]) -> Sentences:
        targets = [item.target.astype(np.int64) for item in examples]
        shifted = [np.concatenate(([self._start], target[:-1])) for target in targets]
        return Sentences(
            _rows([item.source.astype(np.int64) for item in examples]),
            _rows(shifted),
            torch.from_numpy(np.concatenate(targets)),
        )

    def forward(self, batch: Sentences, draw: int) -> Tensor:
        noise = DropoutStream(self._context.dropout, self._context.seed, draw)
        return decode(self._model, batch.source, batch.shifted, self._settings, noise)

    def loss(self, out: Tensor, batch: Sentences) -> Tensor:
        return loss_sum(self._model, out, batch.labels, self._settings)

    def logits(self, out: Tensor, batch: Sentences) -> Tensor:
        del batch
        config = self._model.config
        scaled = out * config.d_model**-0.5 if config.scale_decoder_outputs else out
        return linear(scaled, cast(self._model.lm_head.weight, self._settings.precision)).float()


def _rows(parts: Sequence[Any]) -> Rows:
    return Rows(torch.from_numpy(np.concatenate(parts)), tuple(len(part) for part in parts))


KERNELS: dict[str, type[Plain] | type[Fast]] = {"plain": Plain, "fast": Fast}


def kernels_of(name: str, context: KernelContext) -> Kernels:
    """The kernels of that name; ``plain`` where the model or device is not one ``fast`` knows."""
    if name == "fast" and not supports(context.model):
        name = "plain"
    return KERNELS[name](context)


def micro_batches(rows: Sequence[int], lengths: Lengths, most: int, tokens: int) -> list[list[int]]:
    """Consecutive rows of a batch, at most ``most`` examples and ``tokens`` tokens at a time.

    0 means any number. One example is never divided. ``lengths`` are those of the rows.
    """
    batches: list[list[int]] = []
    room = 0
    for row, (source, target) in zip(rows, lengths, strict=True):
        size = source + target
        full = not batches or (most and len(batches[-1]) >= most) or (tokens and size > room)
        if full:
            batches.append([])
            room = tokens
        batches[-1].append(row)
        room -= size
    return batches

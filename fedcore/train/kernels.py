"""How the loss of a batch is computed: the forward passes a job may choose, in one table.

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
from fedcore.train.batches import IGNORED, Batch, Lengths, Signs, collate, forward, token_losses
from fedcore.train.tokenization import TokenizedExample


@dataclass(frozen=True)
class KernelContext:
    """What a forward pass needs to know. ``seed`` decides what ``dropout``, the model's, takes."""

    model: Any
    device: torch.device
    precision: torch.dtype
    dropout: float
    checkpointing: bool
    seed: int


class Kernels(Protocol):
    """One way to compute the loss of some examples; ``draw`` numbers the pieces of a round."""

    def load(self, examples: Sequence[TokenizedExample]) -> Any:
        """The examples as tensors."""

    def forward(self, batch: Any, draw: int) -> Tensor:
        """What the loss is computed from."""

    def loss(self, out: Tensor, batch: Any) -> Tensor:
        """Sum of the cross-entropy of all target tokens (nats, fp32)."""

    def logits(self, out: Tensor, batch: Any) -> Tensor:
        """(target tokens, vocabulary), fp32: one example after the other, padding left out."""


class Plain:
    def __init__(self, task: KernelContext) -> None:
        self._task, self._signs = task, Signs.of(task.model.config)
        if task.checkpointing:
            task.model.activation_checkpointing_enable({"use_reentrant": False})
        elif any(getattr(m, "gradient_checkpointing", False) for m in task.model.modules()):
            task.model.activation_checkpointing_disable()

    def load(self, examples: Sequence[TokenizedExample]) -> Batch:
        return collate(examples, self._signs, self._task.device)

    def forward(self, batch: Batch, draw: int) -> Tensor:
        del draw
        return forward(self._task.model, batch, self._task.precision)

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
    def __init__(self, task: KernelContext) -> None:
        unwrapped = getattr(task.model, "get_base_model", None)
        self._model = unwrapped() if unwrapped else task.model
        self._task, self._start = task, Signs.of(task.model.config).start
        exact = torch.are_deterministic_algorithms_enabled()  # no choice by measurement then
        dense = onednn if not exact and prefers_onednn() else linear
        self._settings = ForwardSettings(task.precision, task.checkpointing, dense)

    def load(self, examples: Sequence[TokenizedExample]) -> Sentences:
        targets = [item.target.astype(np.int64) for item in examples]
        shifted = [np.concatenate(([self._start], target[:-1])) for target in targets]
        return Sentences(
            _rows([item.source.astype(np.int64) for item in examples]),
            _rows(shifted),
            torch.from_numpy(np.concatenate(targets)),
        )

    def forward(self, batch: Sentences, draw: int) -> Tensor:
        noise = DropoutStream(self._task.dropout, self._task.seed, draw)
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


def kernels_of(name: str, task: KernelContext) -> Kernels:
    """The kernels of that name; ``plain`` where the model or device is not one ``fast`` knows."""
    if name == "fast" and not supports(task.model):
        name = "plain"
    return KERNELS[name](task)


def pieces(rows: Sequence[int], lengths: Lengths, most: int, tokens: int) -> list[list[int]]:
    """Consecutive rows of a batch in pieces of at most ``most`` examples and ``tokens`` tokens.

    0 means any number. One example is never divided. ``lengths`` are those of the rows.
    """
    found: list[list[int]] = []
    room = 0
    for row, (source, target) in zip(rows, lengths, strict=True):
        size = source + target
        full = not found or (most and len(found[-1]) >= most) or (tokens and size > room)
        if full:
            found.append([])
            room = tokens
        found[-1].append(row)
        room -= size
    return found

"""What a node learns from on the bridge, and how: the loss of bridge samples, and of a node.

Agglomerative federated learning, arXiv 2312.11489: a leaf minimises
``CE(own data) + gamma (CE + beta KL)(bridge)``, an inner node ``(CE + beta KL)(bridge)``. The KL is
that of ``divergence``: from the teacher to the node, at the job's temperature, times T^2;
CE is taken at temperature 1. Each is a mean over target tokens.

Our choices: at each step a leaf draws one batch of the bridge beside its own, as large as what it
computes at a time; a node that nobody has taught yet learns from the bridge's targets alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedcore.errors import TrainingError
from fedcore.methods.agglomerative.bridge import Bridge, BridgeExample
from fedcore.methods.agglomerative.packed_logits import Packed, divergence, joined, pack
from fedcore.methods.contract import Context, LossTerm
from fedcore.seeds import derive
from fedcore.train.batches import groups
from fedcore.train.kernels import KernelContext, Kernels, kernels_of
from fedcore.train.loop import TrainingTask, Weights, job_kernels
from fedcore.train.tokenization import TokenizedExample

BATCH = 16  # examples at a time where nothing is learned


@dataclass(frozen=True)
class _Told:
    batch: Any
    labels: Tensor
    told: Packed | None


class Distilling:
    """Kernels for bridge samples: their loss is the sum of ``CE + beta KL`` over target tokens."""

    def __init__(self, kernels: Kernels, told: Packed | None, beta: float) -> None:
        self._kernels, self._beta = kernels, beta
        self._told = told if beta else None

    def load(self, examples: Sequence[TokenizedExample]) -> _Told:
        labels = np.concatenate([item.target for item in examples]).astype(np.int64)
        told = None
        if self._told is not None:
            rows = [item.rows for item in examples if isinstance(item, BridgeExample)]
            told = self._told.some(torch.cat(rows))
        return _Told(self._kernels.load(examples), torch.from_numpy(labels), told)

    def forward(self, batch: _Told, draw: int) -> Tensor:
        return self._kernels.forward(batch.batch, draw)

    def loss(self, out: Tensor, batch: _Told) -> Tensor:
        if batch.told is None:
            return self._kernels.loss(out, batch.batch)
        logits = self.logits(out, batch)
        told = batch.told.to(logits.device)
        hard = cross_entropy(logits, batch.labels.to(logits.device), reduction="sum")
        return hard + self._beta * divergence(told, logits)

    def logits(self, out: Tensor, batch: _Told) -> Tensor:
        return self._kernels.logits(out, batch.batch)


def agglomerative(context: Context) -> LossTerm:
    """A leaf's term on the bridge, or an inner node's whole loss. ``gamma`` 0: plain training."""
    lesson, options = context.own.lesson, context.spec.distill
    if lesson is None:
        raise TrainingError(
            "agglomerative training needs the bridge samples; "
            "train through fedcore.methods.agglomerative.node"
        )
    kernels = Distilling(job_kernels(context.work, "bridge"), lesson.told, options.beta)
    if lesson.alone:
        return LossTerm(kernels=kernels)
    if options.gamma == 0:
        return LossTerm()
    drawn = enumerate(_batches(context.work, lesson.bridge))

    def penalty(weights: Weights) -> Tensor:
        del weights
        number, examples = next(drawn)
        batch = kernels.load(examples)
        loss = kernels.loss(kernels.forward(batch, number * len(lesson.bridge)), batch)
        tokens = sum(len(item.target) for item in examples)
        return options.gamma * loss / tokens

    return LossTerm(penalty)


def _batches(work: TrainingTask, bridge: Bridge) -> Iterator[list[BridgeExample]]:
    """Endless batches of the bridge, each pass freshly shuffled."""
    sizes = (work.train.batch_size, work.train.micro_batch, work.micro_batch)
    train = replace(work.train, batch_size=min(size for size in sizes if size))
    for group in groups(train, bridge.lengths, derive(work.seed, "bridge order")):
        for rows in group:
            yield [bridge[row] for row in rows]


@torch.no_grad()
def bridge_logits(
    task: KernelContext, kind: str, bridge: Bridge, packing: tuple[int, float]
) -> Packed:
    """What the task's model says on the bridge, teacher-forced; on the CPU, in the bridge's order.

    ``kind`` names the kernels, ``packing`` is how many tokens are kept, and the temperature.
    """
    task.model.eval()
    kernels = kernels_of(kind, replace(task, dropout=0.0))
    parts = []
    for first in range(0, len(bridge), BATCH):
        examples = [bridge[row] for row in range(first, min(first + BATCH, len(bridge)))]
        batch = kernels.load(examples)
        logits = kernels.logits(kernels.forward(batch, 0), batch)
        parts.append(pack(logits, *packing).to(torch.device("cpu")))
    return joined(parts, packing[1])

"""Kernels for bridge samples: the distillation loss, and a model's logits on the bridge.

The loss is ``CE + beta KL``, summed over target tokens. The KL is that of ``divergence``: from the
teacher to the student, at the job's temperature, times T^2. CE is taken at temperature 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedcore.methods.distillation.bridge import Bridge, BridgeExample
from fedcore.methods.distillation.packed_logits import PackedLogits, divergence, joined, pack
from fedcore.train.kernels import KernelContext, Kernels, kernels_of
from fedcore.train.tokenization import TokenizedExample

BATCH = 16  # examples at a time in inference


@dataclass(frozen=True)
class _BridgeBatch:
    batch: Any
    labels: Tensor
    teacher: PackedLogits | None


class DistillationKernels:
    """Kernels for bridge samples: the loss is the sum of ``CE + beta KL`` over target tokens."""

    def __init__(self, kernels: Kernels, teacher: PackedLogits | None, beta: float) -> None:
        self._kernels, self._beta = kernels, beta
        self._teacher = teacher if beta else None

    def load(self, examples: Sequence[TokenizedExample]) -> _BridgeBatch:
        labels = np.concatenate([item.target for item in examples]).astype(np.int64)
        teacher = None
        if self._teacher is not None:
            rows = [item.rows for item in examples if isinstance(item, BridgeExample)]
            teacher = self._teacher.select(torch.cat(rows))
        return _BridgeBatch(self._kernels.load(examples), torch.from_numpy(labels), teacher)

    def forward(self, batch: _BridgeBatch, draw: int) -> Tensor:
        return self._kernels.forward(batch.batch, draw)

    def loss(self, out: Tensor, batch: _BridgeBatch) -> Tensor:
        if batch.teacher is None:
            return self._kernels.loss(out, batch.batch)
        logits = self.logits(out, batch)
        hard = cross_entropy(logits, batch.labels.to(logits.device), reduction="sum")
        return hard + self._beta * divergence(batch.teacher.to(logits.device), logits)

    def logits(self, out: Tensor, batch: _BridgeBatch) -> Tensor:
        return self._kernels.logits(out, batch.batch)


@torch.no_grad()
def bridge_logits(
    context: KernelContext, kind: str, bridge: Bridge, packing: tuple[int, float]
) -> PackedLogits:
    """Teacher-forced logits of the context's model on the bridge: on the CPU, in bridge order.

    ``kind`` names the kernels; ``packing`` is (top_k, temperature).
    """
    context.model.eval()
    kernels = kernels_of(kind, replace(context, dropout=0.0))
    parts = []
    for first in range(0, len(bridge), BATCH):
        examples = [bridge[row] for row in range(first, min(first + BATCH, len(bridge)))]
        batch = kernels.load(examples)
        logits = kernels.logits(kernels.forward(batch, 0), batch)
        parts.append(pack(logits, *packing).to(torch.device("cpu")))
    return joined(parts, packing[1])

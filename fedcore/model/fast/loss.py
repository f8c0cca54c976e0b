"""Cross-entropy over a large vocabulary in pieces: the logits of a batch never exist at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

ROWS = 128  # x 32,128 logits in bf16: 8 MB


def cross_entropy(hidden: Tensor, head: Tensor, labels: Tensor) -> Tensor:
    """Sum over the tokens of their cross-entropy in nats, fp32.

    ``hidden`` (tokens, width) and ``head`` (vocabulary, width) in the precision of the products,
    ``labels`` (tokens). The forward pass computes the gradients, so no logits are saved.
    """
    total: Tensor = _CrossEntropy.apply(hidden, head, labels)  # type: ignore[no-untyped-call]
    return total


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, labels: Tensor) -> Tensor:
        to_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        to_head = torch.zeros(head.shape) if ctx.needs_input_grad[1] else None
        total = torch.zeros(())
        for start in range(0, len(hidden), ROWS):
            rows, targets = hidden[start : start + ROWS], labels[start : start + ROWS, None]
            scores = torch.log_softmax(rows @ head.t(), -1, dtype=torch.float32)
            total -= scores.gather(1, targets).sum()
            grad = scores.exp_()
            grad.scatter_add_(1, targets, grad.new_full(targets.shape, -1.0))
            grad = grad.to(hidden.dtype)
            if to_hidden is not None:
                torch.mm(grad, head, out=to_hidden[start : start + ROWS])
            if to_head is not None:
                to_head += grad.t() @ rows
        ctx.save_for_backward(*(x for x in (to_hidden, to_head) if x is not None))
        ctx.has = to_hidden is not None, to_head is not None, head.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        saved = list(ctx.saved_tensors)
        to_hidden = saved.pop(0) * grads[0] if ctx.has[0] else None
        to_head = (saved.pop(0) * grads[0]).to(ctx.has[2]) if ctx.has[1] else None
        return to_hidden, to_head, None

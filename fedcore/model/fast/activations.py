"""T5's RMS norm and the gated GELU of its feed-forward layers, with small saved state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import gelu


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """``x / sqrt(mean(x^2) + epsilon) * weight`` of ``x`` (tokens, width), in ``dtype``."""
    normed: Tensor = _RmsNorm.apply(x, weight, epsilon, dtype)  # type: ignore[no-untyped-call]
    return normed


class _RmsNorm(Function):
    """Keeps the normalised rows in ``dtype`` instead of the residual sums in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        rate = torch.rsqrt(length.square().div_(x.shape[-1]).add_(epsilon))
        rows = (x * rate).to(dtype)
        ctx.save_for_backward(rows, rate, weight)
        return rows * weight.to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        rows, rate, weight = ctx.saved_tensors
        grad = grads[0]
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = (grad * rows).sum(0, dtype=torch.float32).to(weight.dtype)
        back = grad * weight.to(grad.dtype)
        shared = (back * rows).mean(-1, keepdim=True, dtype=torch.float32)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (back - rows * shared).mul_(rate)
        return to_x, to_weight, None, None


def gated_gelu(gate: Tensor, linear: Tensor) -> Tensor:
    """``gelu(gate) * linear`` (tanh form, as FLAN-T5's ``gelu_new``); keeps its inputs alone."""
    out: Tensor = _GatedGelu.apply(gate, linear)  # type: ignore[no-untyped-call]
    return out


class _GatedGelu(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, linear: Tensor) -> Tensor:
        ctx.save_for_backward(gate, linear)
        return gelu(gate, approximate="tanh").mul_(linear)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        gate, linear = ctx.saved_tensors
        to_linear = gelu(gate, approximate="tanh").mul_(grads[0])
        back = grads[0] * linear
        return torch.ops.aten.gelu_backward(back, gate, approximate="tanh"), to_linear

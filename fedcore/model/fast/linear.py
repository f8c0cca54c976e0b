"""Linear layers over rows of tokens, in the precision of training.

A frozen matrix is used as stored, a trained one is cast once a call, a LoRA adapter adds two thin
products to its matrix, and any other module is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import linear

from fedcore.model.fast.dropout import DropoutStream

Dense = Callable[[Tensor, Tensor], Tensor]


def has_onednn() -> bool:
    """True where torch was built with oneDNN and offers its products by name."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn(x: Tensor, weight: Tensor) -> Tensor:
    """``linear`` through oneDNN where torch would take MKL: fp32.

    MKL runs AVX2 code on AMD's processors: measured on a Zen 5, 219 GFLOP/s against 112.
    """
    if x.dtype != torch.float32:
        return linear(x, weight)
    out: Tensor = _OneDnn.apply(x, weight)  # type: ignore[no-untyped-call]
    return out


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T``."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return out


class _OneDnn(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return _multiply(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        to_x = _multiply(grads[0], weight.t()) if ctx.needs_input_grad[0] else None
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = _multiply(grads[0].t(), x.t())
        return to_x, to_weight


def cast(tensor: Any, dtype: torch.dtype) -> Any:
    return tensor if tensor is None or tensor.dtype == dtype else tensor.to(dtype)


def product(module: Any, x: Tensor, noise: DropoutStream, dense: Dense = linear) -> Tensor:
    """``module`` of ``x`` (tokens, in): (tokens, out), in the precision of ``x``.

    PEFT's LoRA layer is base + scale B A dropout(x).
    """
    if not hasattr(module, "lora_A"):
        if type(module) is torch.nn.Linear and module.bias is None:
            return dense(x, cast(module.weight, x.dtype))
        called: Tensor = cast(module(x), x.dtype)
        return called
    out = product(module.base_layer, x, noise, dense)
    for name in module.active_adapters:
        down, up = module.lora_A[name].weight, module.lora_B[name].weight
        rate = getattr(module.lora_dropout[name], "p", 0.0)
        thin = dense(noise.drop(x, rate), cast(down, x.dtype))
        out = torch.addmm(out, thin, cast(up, x.dtype).t(), alpha=module.scaling[name])
    return out

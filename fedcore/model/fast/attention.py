"""Attention over sentences that lie one after the other, without padding between them.

The scores of one sentence fit the caches of a CPU, and no product is spent on padding. Measured on
two cores with AVX-512 in bf16, 384 tokens, 6 heads: forward 0.7 ms against 1.9 of
``scaled_dot_product_attention``, both ways 1.5 against 6.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fedcore.model.fast.dropout import BITS, DropoutStream, mask, scale

Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Places:
    """Where each sentence's queries and keys begin and end, and the number of heads."""

    queries: Spans
    keys: Spans
    heads: int


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, places: Places, noise: DropoutStream
) -> Tensor:
    """T5's attention: softmax(q k^T + bias) v, not scaled, with dropout on the probabilities.

    ``q`` is (queries, heads x width), ``k`` and ``v`` (keys, heads x width), ``bias`` (heads,
    longest query, longest key) in the precision of ``q``; the result is like ``q``.
    """
    out: Tensor = _Attend.apply(q, k, v, bias, places, noise)  # type: ignore[no-untyped-call]
    return out


def _heads(x: Tensor, span: tuple[int, int], heads: int) -> Tensor:
    """(heads, tokens, width): a view of one sentence's rows."""
    start, end = span
    return x[start:end].view(end - start, heads, -1).transpose(0, 1)


def _probabilities(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    keys = k.transpose(1, 2)
    if bias is None:
        scores = torch.bmm(q, keys)
    else:
        scores = torch.baddbmm(bias[:, : q.shape[1], : k.shape[1]], q, keys)
    return torch.softmax(scores, -1)


class _Attend(Function):
    """Keeps the probabilities; the sign bit of one says that dropout took it."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        places: Places,
        noise: DropoutStream,
    ) -> Tensor:
        out = torch.empty_like(q)
        kept = []
        factor = scale(noise.rate)
        for mine, theirs in zip(places.queries, places.keys, strict=True):
            one = _probabilities(
                _heads(q, mine, places.heads), _heads(k, theirs, places.heads), bias
            )
            used = one
            if noise:
                bits = noise.kept(one.numel(), noise.rate).view(one.shape)
                used = mask(one, bits)
                _sign(one, bits)
            kept.append(one)
            rows = torch.bmm(used, _heads(v, theirs, places.heads))
            if noise:
                rows *= factor
            _heads(out, mine, places.heads).copy_(rows)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.places, ctx.factor, ctx.dropped = places, factor, bool(noise)
        ctx.bias = None if bias is None else (bias.shape, bias.requires_grad)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, *kept = ctx.saved_tensors
        places, heads = ctx.places, ctx.places.heads
        grad = grads[0].contiguous()
        into = [torch.empty_like(x) for x in (q, k, v)]
        to_bias = None
        if ctx.bias is not None and ctx.needs_input_grad[3]:
            to_bias = torch.zeros(ctx.bias[0], dtype=torch.float32)
        for mine, theirs, one in zip(places.queries, places.keys, kept, strict=True):
            out = _heads(grad, mine, heads)
            used, bits = _used(one) if ctx.dropped else (one, None)
            if ctx.dropped:
                out = out * ctx.factor
            _heads(into[2], theirs, heads).copy_(torch.bmm(used.transpose(1, 2), out))
            back = torch.bmm(out, _heads(v, theirs, heads).transpose(1, 2))
            if bits is not None:
                back, one = mask(back, bits), _unsigned(one)
            score = torch._softmax_backward_data(back, one, -1, one.dtype)
            if to_bias is not None:
                to_bias[:, : score.shape[1], : score.shape[2]] += score
            _heads(into[0], mine, heads).copy_(torch.bmm(score, _heads(k, theirs, heads)))
            _heads(into[1], theirs, heads).copy_(
                torch.bmm(score.transpose(1, 2), _heads(q, mine, heads))
            )
        return *into, None if to_bias is None else to_bias.to(q.dtype), None, None


def _sign(probabilities: Tensor, kept: Tensor) -> None:
    """Set the sign bit where a probability is dropped."""
    kind = BITS[probabilities.dtype]
    lowest = torch.iinfo(kind).min
    probabilities.view(kind).bitwise_or_(kept.to(kind).bitwise_not_().bitwise_and_(lowest))


def _used(signed: Tensor) -> tuple[Tensor, Tensor]:
    """The probabilities after dropout, not scaled, and which are kept (all ones)."""
    kind = BITS[signed.dtype]
    bits = signed.view(kind)
    kept = (bits >> (torch.iinfo(kind).bits - 1)).bitwise_not_()
    return (bits & kept).view(signed.dtype), kept


def _unsigned(signed: Tensor) -> Tensor:
    return signed.abs()

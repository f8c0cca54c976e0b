"""Attention over concatenated sentences, without padding between them.

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
    """The rows of each sentence's queries and keys, and the number of heads."""

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


class _Attend(Function):
    """Saves the probabilities; a set sign bit marks one that was dropped."""

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
        probabilities = []
        factor, heads = scale(noise.rate), places.heads
        for query_span, key_span in zip(places.queries, places.keys, strict=True):
            queries = _heads(q, query_span, heads)
            keys = _heads(k, key_span, heads).transpose(1, 2)
            if bias is None:
                scores = torch.bmm(queries, keys)
            else:
                sentence_bias = bias[:, : queries.shape[1], : keys.shape[2]]
                scores = torch.baddbmm(sentence_bias, queries, keys)
            p = torch.softmax(scores, -1)
            used = p
            if noise:
                keep = noise.keep_mask(p.numel(), noise.rate).view(p.shape)
                used = mask(p, keep)
                # Set the sign bit where a probability is dropped.
                kind = BITS[p.dtype]
                lowest = torch.iinfo(kind).min
                p.view(kind).bitwise_or_(keep.to(kind).bitwise_not_().bitwise_and_(lowest))
            probabilities.append(p)
            rows = torch.bmm(used, _heads(v, key_span, heads))
            if noise:
                rows *= factor
            _heads(out, query_span, heads).copy_(rows)
        ctx.save_for_backward(q, k, v, *probabilities)
        ctx.places, ctx.factor, ctx.dropped = places, factor, bool(noise)
        ctx.bias = None if bias is None else (bias.shape, bias.requires_grad)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, *probabilities = ctx.saved_tensors
        places, heads = ctx.places, ctx.places.heads
        grad = grads[0].contiguous()
        to_q, to_k, to_v = (torch.empty_like(x) for x in (q, k, v))
        to_bias = None
        if ctx.bias is not None and ctx.needs_input_grad[3]:
            to_bias = torch.zeros(ctx.bias[0], dtype=torch.float32)
        for query_span, key_span, p in zip(places.queries, places.keys, probabilities, strict=True):
            out = _heads(grad, query_span, heads)
            used, keep = p, None
            if ctx.dropped:
                # After dropout, not scaled; ``keep`` is all ones where nothing was dropped.
                kind = BITS[p.dtype]
                bits = p.view(kind)
                keep = (bits >> (torch.iinfo(kind).bits - 1)).bitwise_not_()
                used = (bits & keep).view(p.dtype)
                out = out * ctx.factor
            _heads(to_v, key_span, heads).copy_(torch.bmm(used.transpose(1, 2), out))
            to_p = torch.bmm(out, _heads(v, key_span, heads).transpose(1, 2))
            if keep is not None:
                to_p, p = mask(to_p, keep), p.abs()
            score = torch._softmax_backward_data(to_p, p, -1, p.dtype)
            if to_bias is not None:
                to_bias[:, : score.shape[1], : score.shape[2]] += score
            _heads(to_q, query_span, heads).copy_(torch.bmm(score, _heads(k, key_span, heads)))
            _heads(to_k, key_span, heads).copy_(
                torch.bmm(score.transpose(1, 2), _heads(q, query_span, heads))
            )
        return to_q, to_k, to_v, None if to_bias is None else to_bias.to(q.dtype), None, None

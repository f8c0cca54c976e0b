"""T5's forward pass and loss on sentences of any length, without padding.

The tokens of a batch are concatenated: every product sees real tokens only. The modules, their
names and their weights stay those of transformers, so adapters, generation and export work as
before. So does the mathematics, with three choices of our own: the residual sums are fp32, dropout
rates are multiples of 2^-16, and the logits exist in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, gelu, linear, relu
from torch.utils.checkpoint import checkpoint

from fedcore.model.fast.activations import gated_gelu, rms_norm
from fedcore.model.fast.attention import Places, Spans, attend
from fedcore.model.fast.dropout import DropoutStream
from fedcore.model.fast.linear import Dense, cast, product
from fedcore.model.fast.loss import cross_entropy
from fedcore.model.kinds.bottleneck import NAME as BOTTLENECK

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "gelu": gelu,
    "gelu_new": partial(gelu, approximate="tanh"),
}
GATED = "gelu_new"


@dataclass(frozen=True)
class Rows:
    """Concatenated sentences: token ids (tokens), and the length of each."""

    ids: Tensor
    lengths: tuple[int, ...]

    @property
    def spans(self) -> Spans:
        return list(pairwise((0, *accumulate(self.lengths))))


@dataclass(frozen=True)
class ForwardSettings:
    """``precision`` of the products; ``checkpointing``: the backward pass recomputes layers."""

    precision: torch.dtype
    checkpointing: bool = False
    dense: Dense = linear


def supports(model: Any) -> bool:
    """Whether the model consists of layers that this forward pass supports, on a CPU."""
    config = model.config
    known = config.model_type == "t5" and config.dense_act_fn in ACTIVATIONS
    return bool(known) and next(model.parameters()).device.type == "cpu"


def loss_sum(model: Any, hidden: Tensor, labels: Tensor, settings: ForwardSettings) -> Tensor:
    """Sum of the cross-entropy of all target tokens, in nats, fp32.

    ``hidden`` is the result of ``decode``, ``labels`` (target tokens) are the target ids.
    """
    if model.config.scale_decoder_outputs:
        hidden = hidden * model.config.d_model**-0.5
    return cross_entropy(hidden, cast(model.lm_head.weight, settings.precision), labels)


def decode(
    model: Any, source: Rows, shifted: Rows, settings: ForwardSettings, noise: DropoutStream
) -> Tensor:
    """Last hidden states of the decoder (target tokens, width), in the precision of the products.

    ``shifted`` are the decoder's inputs: each sentence begins with the start token.
    """
    encoder = _Stack(model.encoder, source, None, settings, noise.part("encoder"))
    memory = encoder.run(())
    decoder = _Stack(model.decoder, shifted, source, settings, noise.part("decoder"))
    return decoder.run((memory,))


class _Stack:
    """Encoder or decoder over one batch. ``theirs``: the source, which the decoder attends to."""

    def __init__(
        self,
        stack: Any,
        rows: Rows,
        theirs: Rows | None,
        settings: ForwardSettings,
        noise: DropoutStream,
    ) -> None:
        self.stack, self.rows, self.settings, self.noise = stack, rows, settings, noise
        heads = stack.config.num_heads
        spans = rows.spans
        self.own = Places(spans, spans, heads)
        self.cross = Places(spans, theirs.spans, heads) if theirs else None

    def run(self, memory: Sequence[Tensor]) -> Tensor:
        x = embedding(self.rows.ids, self.stack.embed_tokens.weight).float()
        x = self.noise.part("embedding").drop(x)
        # Relative position biases (heads, longest, longest) in the precision of the products.
        longest = max(self.rows.lengths)
        bias = self.stack.block[0].layer[0].SelfAttention.compute_bias(longest, longest)[0]
        if self.stack.is_decoder:
            future = torch.ones(longest, longest, dtype=torch.bool).triu(1)
            bias = bias.masked_fill(future, torch.finfo(bias.dtype).min)
        bias = cast(bias, self.settings.precision).contiguous()
        for number, block in enumerate(self.stack.block):
            call = partial(self._block, block, str(number))
            if self.settings.checkpointing and torch.is_grad_enabled():
                x = checkpoint(call, x, bias, *memory, use_reentrant=False,
                               preserve_rng_state=False)  # fmt: skip
            else:
                x = call(x, bias, *memory)
        x = self._normed(self.stack.final_layer_norm, x)
        return self.noise.part("end").drop(x)

    def _normed(self, norm: Any, x: Tensor) -> Tensor:
        return rms_norm(x, norm.weight, norm.variance_epsilon, self.settings.precision)

    def _block(
        self, block: Any, name: str, x: Tensor, bias: Tensor | None, memory: Tensor | None = None
    ) -> Tensor:
        noise = self.noise.part(name)
        first = block.layer[0]
        seen = self._normed(first.layer_norm, x)
        x = x + self._attention(first.SelfAttention, seen, seen, bias, self.own, noise)
        if memory is not None and self.cross is not None:
            second = block.layer[1]
            seen = self._normed(second.layer_norm, x)
            x = x + self._attention(second.EncDecAttention, seen, memory, None, self.cross, noise)
        last = block.layer[-1]
        seen = self._normed(last.layer_norm, x)
        return x + self._feed_forward(last.DenseReluDense, seen, noise)

    def _attention(
        self, module: Any, x: Tensor, theirs: Tensor, bias: Tensor | None, places: Places,
        noise: DropoutStream,
    ) -> Tensor:  # fmt: skip
        q = self._product(module.q, x, noise)
        k, v = (self._product(part, theirs, noise) for part in (module.k, module.v))
        return noise.drop(self._product(module.o, attend(q, k, v, bias, places, noise), noise))

    def _product(self, module: Any, x: Tensor, noise: DropoutStream) -> Tensor:
        return product(module, x, noise, self.settings.dense)

    def _feed_forward(self, module: Any, x: Tensor, noise: DropoutStream) -> Tensor:
        act = self.stack.config.dense_act_fn
        if hasattr(module, "wi"):
            inner = ACTIVATIONS[act](self._product(module.wi, x, noise))
        else:
            gate, other = (self._product(part, x, noise) for part in (module.wi_0, module.wi_1))
            inner = gated_gelu(gate, other) if act == GATED else ACTIVATIONS[act](gate) * other
        out = self._product(module.wo, noise.drop(inner), noise)
        adapter = getattr(module, BOTTLENECK, None)
        return noise.drop(out if adapter is None else adapter(out))

"""Needed FLOPs of a training step on one sample, counted from the architecture.

Only matrix products count, 2 FLOPs per multiply-add, without padding; the count agrees with torch's
FLOP counter. A frozen weight needs no weight gradient, and nothing below the first adapter needs an
input gradient. S and T are the sample's source and target positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from fedcore.architecture.sizes import Architecture
from fedcore.plan.cost.flops import Cost


@dataclass(frozen=True)
class StepCost:
    """Needed FLOPs of one sample: the forward pass, and a whole training step."""

    forward: Cost
    training: Cost


def full_cost(architecture: Architecture) -> StepCost:
    """Full training: backward is twice forward."""
    forward = _count(architecture, 0, frozenset()).forward
    return StepCost(forward, forward * 3)


def lora_cost(
    architecture: Architecture, rank: int, targets: Iterable[str], width: int = 0
) -> StepCost:
    """LoRA and bottlenecks on a frozen base. Without LoRA: rank 0, no targets; else width 0."""
    return _count(architecture, rank, frozenset(targets), width)


def ranked_cost(architecture: Architecture, ranks: tuple[int, ...], width: int = 0) -> StepCost:
    """LoRA with one rank for each of ``fedcore.architecture.matrices``; -1: no adapter."""
    return _count(architecture, 0, frozenset(), width, ranks)


def layers_cost(architecture: Architecture, last: int) -> StepCost:
    """Training of the last decoder layers; everything else is frozen."""
    return _count(architecture, 0, frozenset(), last=last)


Per = Callable[[int], Cost]


class _Tape:
    """Counts products, and tracks which activations need a gradient."""

    def __init__(self, rank: int, targets: frozenset[str], ranks: tuple[int, ...] = ()) -> None:
        self.rank, self.targets, self.ranks = rank, targets, iter(ranks)
        self.uniform = not ranks
        self.trained = False  # whether the layer's own weights train
        self.forward, self.backward = Cost(), Cost()

    def linear(self, name: str, per: Per, sizes: tuple[int, int], x: bool) -> bool:
        """Count a matrix of (in, out) ``sizes``. ``x``: its input needs a gradient.

        Returns whether its output needs one.
        """
        base = per(2 * sizes[0] * sizes[1])
        uniform_rank = self.rank if name in self.targets else -1
        rank = uniform_rank if self.uniform else next(self.ranks, -1)
        down, up = per(2 * sizes[0] * rank), per(2 * rank * sizes[1])
        adapted = rank >= 0
        self.forward += base + (down + up if adapted else Cost())
        self.backward += base * (x + self.trained)
        if adapted:  # B's input and weight, A's weight, and perhaps A's input
            self.backward += up * 2 + down * (2 if x else 1)
        return adapted or self.trained or x

    def bottleneck(self, per: Per, sizes: tuple[int, int], x: bool) -> bool:
        """Count a trained bottleneck; ``sizes``: (d_model, width)."""
        each = per(2 * sizes[0] * sizes[1])
        self.forward += each * 2
        # Two weights, the inner input, and perhaps the outer input.
        self.backward += each * (4 if x else 3)
        return True

    def product(self, cost: Cost, x: bool, y: bool) -> bool:
        """Count a product of two activations, such as queries by keys."""
        self.forward += cost
        self.backward += cost * (x + y)
        return x or y


@lru_cache(maxsize=64)
def _count(
    architecture: Architecture,
    rank: int,
    targets: frozenset[str],
    width: int = 0,
    ranks: tuple[int, ...] = (),
    last: int = 0,
) -> StepCost:
    tape = _Tape(rank, targets, ranks)
    encoded = grad = False
    for _ in range(architecture.encoder_layers):
        encoded = _attend(tape, architecture, _source, _source, "ss", encoded, encoded)
        encoded = _feed_forward(tape, architecture, _source, encoded, width)
    for number in range(architecture.decoder_layers):
        tape.trained = number >= architecture.decoder_layers - last
        grad = grad or tape.trained  # a trained norm's output needs a gradient
        grad = _attend(tape, architecture, _target, _target, "tt", grad, grad)
        grad = _attend(tape, architecture, _target, _source, "st", grad, encoded)
        grad = _feed_forward(tape, architecture, _target, grad, width)
    tape.trained = False
    tape.linear("lm_head", _target, (architecture.d_model, architecture.vocab), grad)
    return StepCost(tape.forward, tape.forward + tape.backward)


def _source(flops: int) -> Cost:
    return Cost(s=flops)


def _target(flops: int) -> Cost:
    return Cost(t=flops)


def _attend(
    tape: _Tape,
    sizes: Architecture,
    query_per: Per,
    key_per: Per,
    pair: str,
    x: bool,
    memory: bool,
) -> bool:
    """Count an attention layer; returns whether its sum with the residual needs a gradient."""
    wide = (sizes.d_model, sizes.inner)
    q = tape.linear("q", query_per, wide, x)
    k = tape.linear("k", key_per, wide, memory)
    v = tape.linear("v", key_per, wide, memory)
    product = Cost(**{pair: 2 * sizes.inner})
    scores = tape.product(product, q, k)
    context = tape.product(product, scores, v)
    return tape.linear("o", query_per, (sizes.inner, sizes.d_model), context) or x


def _feed_forward(tape: _Tape, sizes: Architecture, per: Per, x: bool, width: int) -> bool:
    *first, last = sizes.feed_forward
    hidden = [tape.linear(name, per, (sizes.d_model, sizes.d_ff), x) for name in first]
    out = tape.linear(last, per, (sizes.d_ff, sizes.d_model), any(hidden))
    if width:
        out = tape.bottleneck(per, (sizes.d_model, width), out)
    return out or x

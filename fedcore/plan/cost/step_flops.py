"""Needed FLOPs of a training step, counted from the architecture and from what of it trains.

Of one sample with S source and T target positions (the count is ours and agrees with torch's FLOP
counter): matrix products only, 2 per multiply-add, padding left out. A frozen weight owes no weight
gradient and nothing below the first adapter owes an input gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from fedcore.architecture.sizes import Architecture
from fedcore.plan.cost.flops import Cost


@dataclass(frozen=True)
class StepCost:
    """Needed FLOPs of one sample: forward alone (evaluation) and a whole training step."""

    forward: Cost
    training: Cost


def full_cost(architecture: Architecture) -> StepCost:
    """Full training: backward is twice forward."""
    forward = _count(architecture, 0, frozenset()).forward
    return StepCost(forward, forward * 3)


def lora_cost(
    architecture: Architecture, rank: int, targets: Iterable[str], width: int = 0
) -> StepCost:
    """LoRA of that rank on those matrices and bottlenecks of that width, the base frozen.

    Either may be missing: rank 0 without targets, width 0.
    """
    return _count(architecture, rank, frozenset(targets), width)


def ranked_cost(architecture: Architecture, ranks: tuple[int, ...], width: int = 0) -> StepCost:
    """LoRA of a rank for each of ``fedcore.architecture.matrices``; -1 where there is none."""
    return _count(architecture, 0, frozenset(), width, ranks)


def layers_cost(architecture: Architecture, last: int) -> StepCost:
    """The last decoder layers train, everything else is frozen."""
    return _count(architecture, 0, frozenset(), last=last)


Per = Callable[[int], Cost]


class _Tape:
    """Adds up products while following which activations a gradient must pass through."""

    def __init__(self, rank: int, targets: frozenset[str], ranks: tuple[int, ...] = ()) -> None:
        self.rank, self.targets, self.ranks = rank, targets, iter(ranks)
        self.uniform = not ranks
        self.trained = False  # whether the layer's own weights train
        self.forward, self.backward = Cost(), Cost()

    def linear(self, name: str, per: Per, sizes: tuple[int, int], x: bool) -> bool:
        """One matrix over in x out; ``x``: its input needs a gradient. Returns: its output does."""
        base = per(2 * sizes[0] * sizes[1])
        rank = self._rank_of(name)
        down, up = per(2 * sizes[0] * rank), per(2 * rank * sizes[1])
        adapted = rank >= 0
        self.forward += base + (down + up if adapted else Cost())
        self.backward += base * (x + self.trained)
        if adapted:  # B's input and weight, A's weight; A's input where it needs one
            self.backward += up * 2 + down * (2 if x else 1)
        return adapted or self.trained or x

    def _rank_of(self, name: str) -> int:
        """Of the next matrix; -1 where it has no adapter."""
        if not self.uniform:
            return next(self.ranks, -1)
        return self.rank if name in self.targets else -1

    def bottleneck(self, per: Per, sizes: tuple[int, int], x: bool) -> bool:
        """Down and up again, both trained; sizes are (model, bottleneck)."""
        each = per(2 * sizes[0] * sizes[1])
        self.forward += each * 2
        self.backward += each * (
            4 if x else 3
        )  # two weights, the inner and perhaps the outer input
        return True

    def product(self, cost: Cost, left: bool, right: bool) -> bool:
        """A product of two activations, such as queries by keys."""
        self.forward += cost
        self.backward += cost * (left + right)
        return left or right


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
        grad = grad or tape.trained  # what a trained norm says needs a gradient
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
    """One attention layer with its residual; returns whether the sum needs a gradient."""
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

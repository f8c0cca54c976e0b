"""FLOPs, sizes and MFU of encoder-decoder models, counted from the architecture.

Needed FLOPs of one sample with S source and T target positions (Woisetschlaeger et al., arXiv
2310.03150, give the definition of MFU; the count is ours and agrees with torch's FLOP counter):
matrix products only, 2 per multiply-add, padding left out. A frozen weight owes no weight gradient
and nothing below the first adapter owes an input gradient.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

ATTENTION = ("q", "k", "v", "o")
FP32_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """FLOPs of a sample as a polynomial in its source length S and target length T."""

    s: int = 0
    t: int = 0
    ss: int = 0
    tt: int = 0
    st: int = 0

    def __add__(self, other: Cost) -> Cost:
        pairs = zip(self._parts, other._parts, strict=True)
        return Cost(*(mine + yours for mine, yours in pairs))

    def __mul__(self, factor: int) -> Cost:
        return Cost(*(part * factor for part in self._parts))

    @property
    def _parts(self) -> tuple[int, ...]:
        return (self.s, self.t, self.ss, self.tt, self.st)

    def of(self, lengths: Iterable[tuple[int, int]]) -> int:
        """FLOPs of samples given as (source tokens, target tokens), padding not counted."""
        total = 0
        for s, t in lengths:
            total += self.s * s + self.t * t + self.ss * s * s + self.tt * t * t + self.st * s * t
        return total


@dataclass(frozen=True)
class Architecture:
    """The sizes of a T5-family model. ``heads * d_kv`` need not equal ``d_model``."""

    d_model: int
    d_kv: int
    heads: int
    d_ff: int
    encoder_layers: int
    decoder_layers: int
    vocab: int
    gated: bool = True
    tied: bool = False
    buckets: int = 32

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Architecture:
        """Read a model's ``config.json``."""
        layers = config["num_layers"]
        return cls(
            d_model=config["d_model"],
            d_kv=config["d_kv"],
            heads=config["num_heads"],
            d_ff=config["d_ff"],
            encoder_layers=layers,
            decoder_layers=config.get("num_decoder_layers") or layers,
            vocab=config["vocab_size"],
            gated=str(config.get("feed_forward_proj", "relu")).startswith("gated"),
            tied=bool(config.get("tie_word_embeddings", True)),
            buckets=config.get("relative_attention_num_buckets", 32),
        )

    @property
    def inner(self) -> int:
        """Width of queries, keys and values."""
        return self.heads * self.d_kv

    def parameters(self) -> int:
        """Number of distinct weights."""
        attention = 4 * self.d_model * self.inner
        feed_forward = (3 if self.gated else 2) * self.d_model * self.d_ff
        encoder = self.encoder_layers * (attention + feed_forward + 2 * self.d_model)
        decoder = self.decoder_layers * (2 * attention + feed_forward + 3 * self.d_model)
        ends = 2 * self.d_model + 2 * self.buckets * self.heads
        return encoder + decoder + ends + (1 if self.tied else 2) * self.vocab * self.d_model

    def lora_parameters(self, rank: int, targets: Iterable[str]) -> int:
        """Number of weights of adapters of that rank on those matrices."""
        wanted = set(targets)
        attention = len(wanted & set(ATTENTION)) * (self.d_model + self.inner)
        forward = len(wanted & set(self.feed_forward)) * (self.d_model + self.d_ff)
        encoder = self.encoder_layers * (attention + forward)
        return rank * (encoder + self.decoder_layers * (2 * attention + forward))

    def bottleneck_parameters(self, width: int) -> int:
        """Number of weights of bottlenecks of that width, one after each feed-forward block."""
        layers = self.encoder_layers + self.decoder_layers
        return layers * (2 * self.d_model * width + width + self.d_model)

    def layers_parameters(self, last: int) -> int:
        """Number of weights of the last decoder layers; of all where there are fewer."""
        last = min(last, self.decoder_layers)
        attention = 4 * self.d_model * self.inner
        forward = len(self.feed_forward) * self.d_model * self.d_ff
        biases = self.buckets * self.heads if last == self.decoder_layers else 0
        return last * (2 * attention + forward + 3 * self.d_model) + biases

    @property
    def feed_forward(self) -> tuple[str, ...]:
        return ("wi_0", "wi_1", "wo") if self.gated else ("wi", "wo")


KNOWN: dict[str, Architecture] = {
    "google/flan-t5-small": Architecture(512, 64, 6, 1024, 8, 8, 32128),
    "google/flan-t5-base": Architecture(768, 64, 12, 2048, 12, 12, 32128),
    "google/flan-t5-large": Architecture(1024, 64, 16, 2816, 24, 24, 32128),
    "google/flan-t5-xl": Architecture(2048, 64, 32, 5120, 24, 24, 32128),
}
CHECKPOINTS = Path(__file__).parents[1] / "model" / "checkpoints"
NANO_CONFIG = CHECKPOINTS / "nano" / "config.json"
PACKAGED = ("nano", "micro")


def architecture_of(name: str) -> Architecture | None:
    """The sizes of a model by name or folder, without a download; None where it is unknown."""
    if name in KNOWN:
        return KNOWN[name]
    folder = CHECKPOINTS / name if name in PACKAGED else Path(name).expanduser()
    path = folder / "config.json"
    try:
        return Architecture.from_config(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def payload_bytes(
    architecture: Architecture,
    kind: str,
    rank: int = 8,
    targets: Iterable[str] = ("q", "v"),
    width: int = 32,
    last: int = 2,
) -> int:
    """Bytes of one artefact one way, fp32, its small header not counted.

    ``kind``: lora (of ``rank`` on ``targets``), bottleneck (of ``width``), layers (the ``last``) or
    full.
    """
    if kind == "full":
        return FP32_BYTES * architecture.parameters()
    if kind == "layers":
        return FP32_BYTES * architecture.layers_parameters(last)
    if kind == "bottleneck":
        return FP32_BYTES * architecture.bottleneck_parameters(width)
    return FP32_BYTES * architecture.lora_parameters(rank, targets)


def mfu(flops: float, seconds: float, peak: float) -> float:
    """Model FLOPs utilisation: needed FLOPs over seconds x peak FLOP/s; 0 where either is 0."""
    return flops / (seconds * peak) if seconds > 0 and peak > 0 else 0.0


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
    """LoRA of a rank for each of ``fedcore.plan.matrices``; -1 where there is none."""
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

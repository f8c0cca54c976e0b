"""Sizes and MFU of encoder-decoder models, and FLOPs as a polynomial of a sample's lengths.

Woisetschlaeger et al., arXiv 2310.03150, give the definition of MFU.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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

"""Sizes of T5-family encoder-decoder models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ATTENTION = ("q", "k", "v", "o")
FP32_BYTES = 4


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
        """Number of weights of LoRA adapters of that rank on the target matrices."""
        adapted = set(targets)
        attention = len(adapted & set(ATTENTION)) * (self.d_model + self.inner)
        forward = len(adapted & set(self.feed_forward)) * (self.d_model + self.d_ff)
        encoder = self.encoder_layers * (attention + forward)
        return rank * (encoder + self.decoder_layers * (2 * attention + forward))

    def bottleneck_parameters(self, width: int) -> int:
        """Number of weights of bottleneck adapters, one after each feed-forward block."""
        layers = self.encoder_layers + self.decoder_layers
        return layers * (2 * self.d_model * width + width + self.d_model)

    def layers_parameters(self, last: int) -> int:
        """Number of weights of the last decoder layers, of all if there are fewer."""
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
    """The sizes of a model by name or folder, without a download; None if not known."""
    if name in KNOWN:
        return KNOWN[name]
    folder = CHECKPOINTS / name if name in PACKAGED else Path(name).expanduser()
    path = folder / "config.json"
    try:
        return Architecture.from_config(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None

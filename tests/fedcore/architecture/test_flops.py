"""FLOPs against torch's own counter, and sizes against the published checkpoints."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration

from fedcore.architecture.sizes import KNOWN, NANO_CONFIG, Architecture, architecture_of
from fedcore.formats.frame_header import read_header
from fedcore.model.adapters import attach
from fedcore.model.load import Base
from fedcore.model.weights import ModelSource
from fedcore.plan.cost.flops import mfu
from fedcore.plan.cost.kinds.table import payload_bytes
from fedcore.plan.cost.step_flops import full_cost, lora_cost
from fedcore.spec.options.adapter import AdapterSpec

SHAPES = {
    "flan": ({"d_model": 64, "d_kv": 16, "num_heads": 6, "d_ff": 128, "num_layers": 2}, 96, 24),
    "deep": ({"d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 96, "num_layers": 5,
              "num_decoder_layers": 3}, 33, 70),
    "plain": ({"d_model": 48, "d_kv": 16, "num_heads": 2, "d_ff": 64, "num_layers": 3,
               "feed_forward_proj": "relu"}, 200, 10),
}  # fmt: skip
TARGETS = [("q", "v"), ("o",), ("k", "wo"), ("q", "k", "v", "o", "wo")]


def build(changes: dict[str, object]) -> T5ForConditionalGeneration:
    gated = {"feed_forward_proj": "gated-gelu", "vocab_size": 100, "dropout_rate": 0.0}
    config = T5Config(**(gated | changes), decoder_start_token_id=0)
    config._attn_implementation = "eager"
    return T5ForConditionalGeneration(config)


def counted(model: torch.nn.Module, s: int, t: int) -> int:
    """FLOPs of one training step on two samples without padding, by torch's counter."""
    source, target = torch.ones(2, s, dtype=torch.long), torch.ones(2, t, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=source, decoder_input_ids=target, use_cache=False).logits
        logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", SHAPES)
def test_full_training_agrees_with_torch_within_one_percent(name: str) -> None:
    changes, s, t = SHAPES[name]
    model = build(changes)
    cost = full_cost(Architecture.from_config(model.config.to_dict()))
    assert cost.training.of([(s, t)] * 2) == pytest.approx(counted(model, s, t), rel=0.01)
    assert cost.training.of([(s, t)]) == 3 * cost.forward.of([(s, t)])


@pytest.mark.parametrize("targets", TARGETS, ids="-".join)
@pytest.mark.parametrize("name", SHAPES)
def test_lora_agrees_with_torch_within_one_percent(name: str, targets: tuple[str, ...]) -> None:
    changes, s, t = SHAPES[name]
    model = build(changes)
    adapter = AdapterSpec(rank=4, targets=targets, dropout=0.0)
    tuned = attach(Base(model, None, "", ModelSource("m", None)), adapter, 0)
    cost = lora_cost(Architecture.from_config(model.config.to_dict()), 4, targets)
    assert cost.training.of([(s, t)] * 2) == pytest.approx(counted(tuned, s, t), rel=0.01)


def test_flan_t5_small_known_answer() -> None:
    """methods.md: S = 512, T = 95: forward 33.79 GFLOP, full 3.00 x, LoRA r = 8 on q, v 2.11 x."""
    small = KNOWN["google/flan-t5-small"]
    forward = full_cost(small).forward.of([(512, 95)])
    assert forward == pytest.approx(33.79e9, rel=0.0005)
    lora = lora_cost(small, 8, ("q", "v")).training.of([(512, 95)])
    assert lora / forward == pytest.approx(2.11, abs=0.005)


def test_the_closed_formula() -> None:
    """2 [L (4da + 3df) S + L (6da + 3df) T + L 2da S + dVT] + 4aL (S^2 + T^2 + ST)."""
    a = KNOWN["google/flan-t5-base"]
    s, t, layers, d, f, inner = 300, 40, 12, 768, 2048, 768
    linear = layers * (4 * d * inner + 3 * d * f) * s + layers * (6 * d * inner + 3 * d * f) * t
    linear += layers * 2 * d * inner * s + d * a.vocab * t
    attention = 4 * inner * layers * (s * s + t * t + s * t)
    assert full_cost(a).forward.of([(s, t)]) == 2 * linear + attention


@pytest.mark.parametrize(
    ("name", "lora_mb", "full_mb"),
    [("small", 1.38, 308), ("base", 3.54, 990), ("large", 9.44, 3133), ("xl", 18.87, 11399)],
)
def test_published_payloads(name: str, lora_mb: float, full_mb: float) -> None:
    sizes = KNOWN[f"google/flan-t5-{name}"]
    assert payload_bytes(sizes, AdapterSpec()) / 1e6 == pytest.approx(lora_mb, abs=0.006)
    assert payload_bytes(sizes, AdapterSpec(kind="full")) / 1e6 == pytest.approx(full_mb, abs=0.6)


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_the_model(name: str) -> None:
    model = build(SHAPES[name][0])
    sizes = Architecture.from_config(model.config.to_dict())
    assert sizes.parameters() == sum(item.numel() for item in model.parameters())
    tuned = attach(Base(model, None, "", ModelSource("m", None)), AdapterSpec(rank=3), 0)
    trained = sum(item.numel() for item in tuned.parameters() if item.requires_grad)
    assert sizes.lora_parameters(3, ("q", "v")) == trained


def test_mfu_and_unknown_names() -> None:
    assert mfu(5e9, 2.0, 1e10) == 0.25
    assert mfu(5e9, 0.0, 1e10) == mfu(5e9, 1.0, 0.0) == 0.0
    assert architecture_of("nobody/nothing") is None


@pytest.mark.skipif(not NANO_CONFIG.exists(), reason="the packaged checkpoint is not there")
def test_nano_is_read_from_its_own_configuration() -> None:
    nano = architecture_of("nano")
    assert nano is not None
    shapes = read_header(NANO_CONFIG.parent / "model.safetensors").shapes
    aliases = [name for name in shapes if "embed_tokens" in name]
    counted = sum(math.prod(shape) for name, shape in shapes.items() if name not in aliases)
    assert nano.parameters() == counted

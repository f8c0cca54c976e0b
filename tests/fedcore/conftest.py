"""A tiny random FLAN-T5-shaped model, and dataset files of invented examples."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

LANGUAGE = (
    "anna ben carla dora the a red blue old new car house boat door meets paints sells buys keeps "
    "wants likes today tomorrow monday never at in near and but summarize : . , small large"
)
WORDS = LANGUAGE.split()


def sentences(seed: int, count: int) -> list[dict[str, str]]:
    """Rows whose summary is the second sentence of the text: a thing to learn."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        parts = [" ".join(rng.choices(WORDS, k=rng.randint(4, 8))) + " ." for _ in range(3)]
        domain = ("shop", "home", "travel")[i % 3]
        rows.append({"text": " ".join(parts), "summary": parts[1], "domain": domain})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def make_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)


def make_model(folder: Path, seed: int = 0, **changes: object) -> Path:
    """A random model with an output layer of its own, saved as FLAN-T5 is."""
    import torch
    from safetensors.torch import save_file
    from transformers import T5Config, T5ForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    sizes = {
        "vocab_size": 64, "d_model": 32, "d_kv": 8, "num_heads": 3, "d_ff": 48,
        "num_layers": 2, "num_decoder_layers": 2, "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "dropout_rate": 0.1,
    } | changes  # fmt: skip
    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(T5Config(**sizes))
    state = {
        name: tensor.clone()
        for name, tensor in model.state_dict().items()
        if "embed_tokens" not in name
    }
    state["shared.weight"] *= 0.1
    state["lm_head.weight"] = torch.randn_like(state["lm_head.weight"]) * 0.1
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5",
        "tie_word_embeddings": False, "is_encoder_decoder": True, "use_cache": True, **sizes,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    make_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "rows.jsonl", sentences(1, 24))


def spec_of(model: Path | str, **changes: object) -> JobSpec:
    """A small exact job: fp32, one thread, two steps of four."""
    values: dict[str, object] = {
        "model": {"name": str(model)},
        "adapter": {"rank": 2},
        "data": {"max_source_tokens": 32, "max_target_tokens": 12, "max_validation_examples": 4},
        "train": {
            "local_steps": 2, "batch_size": 4, "precision": "fp32", "learning_rate": 0.01
        },
        "threads": 1,
        "deterministic": True,
        "rounds": 2,
    }  # fmt: skip
    for key, value in changes.items():
        old = values.get(key)
        values[key] = {**old, **value} if isinstance(old, dict) else value  # type: ignore[dict-item]
    return parse_spec(values)

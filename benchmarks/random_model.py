"""A T5 of given sizes with random weights, and random examples of given lengths."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fedcore.architecture.sizes import Architecture
from fedcore.model.load import NANO
from fedcore.model.skeleton import full_shapes
from fedcore.model.weights import ModelSource
from fedcore.train.tokenization import Prepared, TokenizedDataset
from fedcore.wire.frame import FrameWriter

SCALE = 0.02
FIRST_WORD = 3  # ids below are padding, end and unknown
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def random_model(sizes: Architecture, folder: Path) -> Path:
    """Write a model folder in fp32. It needs the memory of the largest matrix.

    Its tokenizer is nano's, so use it with ids and not with words. A complete folder is reused.
    """
    target = folder / "model.safetensors"
    if target.is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "tie_word_embeddings": sizes.tied,
        "vocab_size": sizes.vocab,
        "d_model": sizes.d_model,
        "d_kv": sizes.d_kv,
        "num_heads": sizes.heads,
        "d_ff": sizes.d_ff,
        "num_layers": sizes.encoder_layers,
        "num_decoder_layers": sizes.decoder_layers,
        "feed_forward_proj": "gated-gelu" if sizes.gated else "relu",
        "relative_attention_num_buckets": sizes.buckets,
        "dropout_rate": 0.1,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    for name in TOKENIZER_FILES:
        shutil.copyfile(NANO / name, folder / name)
    shapes = full_shapes(ModelSource(folder.name, folder))
    with FrameWriter(target, {name: ("F32", shape) for name, shape in shapes.items()}, {}) as out:
        for seed, name in enumerate(out.order):
            shape = shapes[name]
            draw = torch.Generator().manual_seed(seed)
            normal = torch.randn(shape, generator=draw) * SCALE
            out.write(name, normal if len(shape) > 1 else torch.ones(shape))
    return folder


def random_examples(
    folder: Path, count: int, lengths: tuple[int, int], vocab: int, seed: int = 0
) -> Prepared:
    """``count`` examples of exactly (source, target) tokens, to train and to validate on."""
    return varied_examples(folder, [lengths] * count, vocab, seed)


def varied_examples(
    folder: Path, lengths: Sequence[tuple[int, int]], vocab: int, seed: int = 0
) -> Prepared:
    """One example of each (source, target) length, in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = np.cumsum(np.asarray(lengths, dtype=np.int64).reshape(-1)).reshape(-1, 2)
    np.save(folder / "ends.npy", ends)
    ids = np.random.default_rng(seed).integers(FIRST_WORD, vocab, int(ends[-1, 1]), dtype=np.int32)
    ids[ends.reshape(-1) - 1] = 1
    ids.tofile(folder / "ids.bin")
    examples = TokenizedDataset(folder)
    return Prepared(examples, examples, ("",) * len(lengths), 0)

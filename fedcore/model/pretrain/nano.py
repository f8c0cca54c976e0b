"""Pre-training of `nano` from random weights: resumable, deterministic for a seed."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from fedcore.dialogues import words
from fedcore.model.pretrain.corpus import batches, dialogues
from fedcore.model.pretrain.induction import wire_copying
from fedcore.model.pretrain.vocabulary import train_tokenizer

_SAVE_EVERY = 200
_LOG_EVERY = 50


@dataclass(frozen=True)
class PretrainRecipe:
    steps: int
    seed: int = 0
    batch: int = 16
    peak_lr: float = 2e-3
    warmup: int = 150
    pieces: int = 2800

    def lr(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to a twentieth of the peak."""
        if step < self.warmup:
            return self.peak_lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak_lr * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def nano_tokenizer(recipe: PretrainRecipe) -> PreTrainedTokenizerFast:
    """Names and things of the word lists count extra, to be one piece each, capital or not."""
    texts = [f"{one.dialogue} {one.summary}" for one in dialogues(1000, recipe.seed)]
    listed = (*words.FIRST_NAMES, *words.SURNAMES, *words.CITIES, *words.THINGS)
    texts += [f"so {word} {word.capitalize()}" for word in listed] * 150
    return train_tokenizer(texts, recipe.pieces)


def nano_model(vocab_size: int, seed: int) -> T5ForConditionalGeneration:
    torch.manual_seed(seed)
    # Dropout 0, unlike FLAN-T5: with 0.1 six federated rounds reached ROUGE-L 20, without it 31.
    config = T5Config(
        vocab_size=vocab_size,
        d_model=192,
        d_kv=32,
        num_heads=6,
        d_ff=384,
        num_layers=3,
        num_decoder_layers=3,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=128,
    )
    model = T5ForConditionalGeneration(config)
    # transformers 5 ties the head to the embedding whatever the configuration says; FLAN-T5's head
    # is its own matrix, and so is the one set here.
    wire_copying(model)
    model.config.tie_word_embeddings = False
    return model


def train(
    model: T5ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    recipe: PretrainRecipe,
    state: Path,
    log: Callable[[str], None] = print,
) -> None:
    """Train in place up to `recipe.steps`; go on from `state` if that file exists.

    The text never repeats, so nothing is over-fitted. fp32, because bf16 autocast
    was half as fast at this width, on a CPU that has bf16 instructions.
    """
    model.eval()
    model.requires_grad_(True)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.peak_lr, betas=(0.9, 0.98), fused=True)
    first = _resume(model, optimizer, state)
    stream = batches(tokenizer, recipe.seed, recipe.batch, first)
    started, running = time.monotonic(), 0.0
    for step in range(first, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr(step)
        batch = next(stream)
        loss = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        running += float(loss.detach())
        if (step + 1) % _LOG_EVERY == 0:
            elapsed_s = time.monotonic() - started
            log(f"step {step + 1} loss {running / _LOG_EVERY:.4f} elapsed_s {elapsed_s:.0f}")
            running = 0.0
        if (step + 1) % _SAVE_EVERY == 0:
            _save(model, optimizer, state, step + 1)


def _save(
    model: T5ForConditionalGeneration, optimizer: torch.optim.Optimizer, state: Path, step: int
) -> None:
    fresh = state.with_suffix(".new")
    torch.save(
        {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, fresh
    )
    fresh.replace(state)


def _resume(
    model: T5ForConditionalGeneration, optimizer: torch.optim.Optimizer, state: Path
) -> int:
    if not state.exists():
        return 0
    checkpoint = torch.load(state, weights_only=True)
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    return int(checkpoint["step"])

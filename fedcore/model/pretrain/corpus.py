"""Pre-training text of `nano`: synthetic dialogues, never those of the held-out domains."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from fedcore.dialogues.examples import DOMAINS, HELD_OUT_DOMAINS, DialogueExample, generate

PREFIX = "summarize: "
REPEAT = "repeat: "
SEEN_DOMAINS = tuple(name for name in DOMAINS if name not in HELD_OUT_DOMAINS)
_OPEN_DOMAINS = ("forms", "messages")
VALIDATION_SEED = 1_000_000_007
_CORRUPTED_SHARE = 0.15
_REPEATED_SHARE = 0.15
_MASKED_SHARE = 0.15
_MEAN_SPAN_WORDS = 3


@dataclass(frozen=True)
class PretrainBatch:
    """Token ids, padded with 0; label padding is -100."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor


def dialogues(count_per_domain: int, seed: int) -> list[DialogueExample]:
    """The same number from every seen domain, and twice that from those with open vocabulary."""
    examples: list[DialogueExample] = []
    for domain in SEEN_DOMAINS:
        share = 2 if domain in _OPEN_DOMAINS else 1
        examples.extend(generate(domain, share * count_per_domain, seed))
    return examples


def corrupt_spans(text: str, rng: random.Random) -> tuple[str, str]:
    """T5's denoising task on words: spans give way to sentinels; the target lists the spans."""
    words = text.split()
    source: list[str] = []
    target: list[str] = []
    at = sentinel = 0
    start = _MASKED_SHARE / _MEAN_SPAN_WORDS
    while at < len(words):
        if sentinel < 99 and rng.random() < start:
            length = rng.randint(1, 2 * _MEAN_SPAN_WORDS - 1)
            source.append(f"<extra_id_{sentinel}>")
            target += [f"<extra_id_{sentinel}>", *words[at : at + length]]
            sentinel += 1
            at += length
        else:
            source.append(words[at])
            at += 1
    return " ".join(source), " ".join([*target, f"<extra_id_{sentinel}>"])


def task(example: DialogueExample, rng: random.Random) -> tuple[str, str]:
    """Source and target: mostly summarization; else denoising, or repeating one line.

    Repeating is short, hence cheap, and the quickest way to learn to copy.
    """
    kind = rng.random()
    if kind < _CORRUPTED_SHARE:
        return corrupt_spans(f"{example.dialogue} {example.summary}", rng)
    if kind < _CORRUPTED_SHARE + _REPEATED_SHARE:
        line = rng.choice(example.dialogue.split("\n"))
        return REPEAT + line, line
    return PREFIX + example.dialogue, example.summary


def batches(
    tokenizer: PreTrainedTokenizerFast, seed: int, size: int, first_step: int
) -> Iterator[PretrainBatch]:
    """An endless stream; step n's batch depends on `seed` and n alone, so a run can resume.

    Text comes in pools of one draw; a pool is sorted by length, cut into batches and shuffled.
    """
    per_domain = 64
    steps_per_pool = (len(SEEN_DOMAINS) + len(_OPEN_DOMAINS)) * per_domain // size
    pool = first_step // steps_per_pool
    skip = first_step % steps_per_pool
    while True:
        rng = random.Random(f"pool:{seed}:{pool}")
        pairs = [task(one, rng) for one in dialogues(per_domain, rng.getrandbits(48))]
        # Repeat random pieces: words that are in no seen domain have to be copied too.
        learned = range(3 + 256, len(tokenizer) - 100)
        for _ in range(len(pairs) // 8):
            text = tokenizer.decode(rng.sample(learned, rng.randint(3, 16)))
            pairs.append((REPEAT + text, text))
        rng.shuffle(pairs)
        pairs = pairs[: steps_per_pool * size]
        sources = tokenizer([source for source, _ in pairs])["input_ids"]
        targets = tokenizer([target for _, target in pairs])["input_ids"]
        order = sorted(range(len(pairs)), key=lambda i: (len(sources[i]), len(targets[i]), i))
        chunks = [order[at : at + size] for at in range(0, len(order), size)]
        rng.shuffle(chunks)
        for chunk in chunks[skip:]:
            yield collate([sources[i] for i in chunk], [targets[i] for i in chunk])
        pool, skip = pool + 1, 0


def collate(sources: list[list[int]], targets: list[list[int]]) -> PretrainBatch:
    input_ids = _pad(sources, 0)
    return PretrainBatch(input_ids, input_ids.ne(0).long(), _pad(targets, -100))


def _pad(rows: list[list[int]], filler: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])

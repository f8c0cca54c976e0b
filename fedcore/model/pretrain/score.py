"""Measure a checkpoint: ROUGE on every domain, and the gain of federated LoRA on held-out ones.

python -m fedcore.model.pretrain.score --model fedcore/model/checkpoints/nano --rounds 8
"""

import argparse
import copy
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5ForConditionalGeneration

from fedcore.dialogues.examples import DOMAINS, HELD_OUT_DOMAINS, DialogueExample, generate
from fedcore.model.pretrain.corpus import PREFIX, VALIDATION_SEED, collate

_METRICS = ("rouge1", "rouge2", "rougeL")
_BATCH = 8


@dataclass(frozen=True)
class Federation:
    """FedAvg over the held-out domains, one device each, every device of the same size."""

    rounds: int = 8
    local_steps: int = 30
    lr: float = 5e-3
    rank: int = 8
    examples: int = 240


def rouge(
    model: Any, tokenizer: PreTrainedTokenizerBase, examples: list[DialogueExample]
) -> dict[str, float]:
    """Mean F of greedy summaries of at most 64 tokens, in points (0 to 100)."""
    scorer = RougeScorer(_METRICS, use_stemmer=True)
    total = dict.fromkeys(_METRICS, 0.0)
    for example, summary in zip(
        examples, generate_summaries(model, tokenizer, examples), strict=True
    ):
        for metric, score in scorer.score(example.summary, summary).items():
            total[metric] += 100 * score.fmeasure / len(examples)
    return total


@torch.no_grad()
def generate_summaries(
    model: Any, tokenizer: PreTrainedTokenizerBase, examples: list[DialogueExample]
) -> list[str]:
    model.eval()
    summaries: list[str] = []
    for at in range(0, len(examples), 40):
        chunk = [PREFIX + example.dialogue for example in examples[at : at + 40]]
        encoded = tokenizer(chunk, return_tensors="pt", padding=True)
        ids = model.generate(**encoded, max_new_tokens=64, num_beams=1, do_sample=False)
        summaries.extend(tokenizer.batch_decode(ids, skip_special_tokens=True))
    return summaries


def local_train(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[DialogueExample],
    plan: Federation,
    seed: str,
) -> float:
    """Some AdamW steps on random batches; the mean loss."""
    model.train()
    rng = random.Random(seed)
    torch.manual_seed(rng.getrandbits(32))
    tuned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(tuned, lr=plan.lr, weight_decay=0.0)
    total = 0.0
    for _ in range(plan.local_steps):
        chunk = rng.sample(examples, _BATCH)
        batch = collate(
            tokenizer([PREFIX + one.dialogue for one in chunk])["input_ids"],
            tokenizer([one.summary for one in chunk])["input_ids"],
        )
        loss = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tuned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total += float(loss.detach())
    return total / plan.local_steps


def federate(
    base: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, plan: Federation
) -> None:
    lora = LoraConfig(
        r=plan.rank,
        lora_alpha=2 * plan.rank,
        target_modules=["q", "v"],
        lora_dropout=0.0,
        task_type="SEQ_2_SEQ_LM",
    )
    torch.manual_seed(0)
    model = get_peft_model(base, lora)
    datasets = {d: list(generate(d, plan.examples, 1)) for d in HELD_OUT_DOMAINS}
    shared = copy.deepcopy(get_peft_model_state_dict(model))
    for number in range(plan.rounds):
        started = time.monotonic()
        sums: dict[str, torch.Tensor] = {}
        losses: list[float] = []
        for domain, examples in datasets.items():
            set_peft_model_state_dict(model, shared)
            losses.append(local_train(model, tokenizer, examples, plan, f"{domain}:{number}"))
            for key, value in get_peft_model_state_dict(model).items():
                sums[key] = sums.get(key, 0) + value.detach().clone() / len(datasets)
        shared = sums
        set_peft_model_state_dict(model, shared)
        trained_s = time.monotonic() - started
        scores = {d: rouge(model, tokenizer, _validation(d, 40))["rougeL"] for d in datasets}
        table = " ".join(f"{domain} {score:.1f}" for domain, score in scores.items())
        took_s = time.monotonic() - started
        print(
            f"round {number + 1} loss {sum(losses) / len(losses):.3f} rougeL {table} mean "
            f"{sum(scores.values()) / len(scores):.1f} train_s {trained_s:.0f} all_s {took_s:.0f}",
            flush=True,
        )
    for domain in datasets:
        example = _validation(domain, 1)
        print(f"  {domain}: {generate_summaries(model, tokenizer, example)[0]}")
        print(f"  expected: {example[0].summary}")


def _validation(domain: str, count: int) -> list[DialogueExample]:
    return list(generate(domain, count, VALIDATION_SEED))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40, help="validation examples per domain")
    parser.add_argument("--rounds", type=int, default=0, help="federated LoRA rounds; 0: none")
    parser.add_argument("--local-steps", type=int, default=30)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only-held-out", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = T5ForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32)
    for domain in HELD_OUT_DOMAINS if args.only_held_out else DOMAINS:
        scores = rouge(model, tokenizer, _validation(domain, args.count))
        table = " ".join(f"{metric} {value:.1f}" for metric, value in scores.items())
        note = " (held out)" if domain in HELD_OUT_DOMAINS else ""
        print(f"{domain}{note}: {table}", flush=True)
    if args.rounds:
        federate(
            model,
            tokenizer,
            Federation(rounds=args.rounds, local_steps=args.local_steps, lr=args.lr),
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

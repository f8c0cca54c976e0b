"""Evaluation on a device's validation part: token loss, and ROUGE by real greedy generation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch

from fedcore.errors import TrainingError
from fedcore.train.batches import Batch, Signs, collate
from fedcore.train.kernels import KernelContext, kernels_of
from fedcore.train.loop import chunks
from fedcore.train.telemetry import EvaluationProgress, Hooks
from fedcore.train.tokenization import Prepared

BATCH = 16
ROUGE = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Evaluation:
    """Mean token loss (nats) and ROUGE F1 in percent (0 to 100), mean over the examples.

    ``tokens`` are the target tokens the loss is a mean of. No text is kept: none may leave.
    ``more``: what a method measures beside, by name; ``personal_loss`` and so on are those of the
    device's own model.
    """

    loss: float
    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 - the name of the measure
    examples: int
    tokens: int
    seconds: float
    more: Mapping[str, float] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """All of it by name, as a device reports it."""
        flat = asdict(self)
        more = flat.pop("more")
        return {**flat, **more}


def with_personal(shared: Evaluation, own: Evaluation) -> Evaluation:
    """The evaluation of a shared model, with that of the device's own on the same examples."""
    measured = {f"personal_{name}": getattr(own, name) for name in ("loss", *ROUGE)}
    seconds = shared.seconds + own.seconds
    return replace(shared, seconds=seconds, more={**shared.more, **measured})


@dataclass(frozen=True)
class EvaluationContext:
    """What an evaluation runs with. ``max_tokens`` bounds each generated summary.

    ``kernels``: how the loss is computed, as in training.
    """

    model: Any
    tokenizer: Any
    max_tokens: int
    device: torch.device
    precision: torch.dtype
    kernels: str = "plain"


@torch.no_grad()
def evaluate(bench: EvaluationContext, prepared: Prepared, hooks: Hooks) -> Evaluation:
    """Evaluate the weights the model holds now. Raises Stopped when asked to stop."""
    began = time.perf_counter()
    bench.model.eval()
    examples = prepared.validation
    task = KernelContext(
        bench.model, bench.device, bench.precision, 0.0, checkpointing=False, seed=0
    )
    kernels = kernels_of(bench.kernels, task)
    rows = sorted(range(len(examples)), key=lambda row: (examples[row].lengths, row))
    losses, tokens = 0.0, 0
    scores: list[tuple[float, ...]] = []
    for part in chunks(rows, BATCH):
        hooks.check_stop("evaluation")
        found = [examples[row] for row in part]
        told = kernels.load(found)
        losses += float(kernels.loss(kernels.forward(told, 0), told))
        batch = collate(found, Signs.of(bench.model.config), bench.device)
        tokens += batch.target_tokens
        texts = generate(bench, batch, hooks)
        scores += [rouge(prepared.references[row], text) for row, text in zip(part, texts)]  # noqa: B905
        hooks.progress(EvaluationProgress(len(scores), len(rows), time.perf_counter() - began))
    loss = losses / tokens
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise TrainingError(f"the validation loss is {loss}; the global weights are not usable")
    one, two, longest = (sum(column) / len(scores) for column in zip(*scores))  # noqa: B905
    seconds = time.perf_counter() - began
    return Evaluation(loss, one, two, longest, len(rows), tokens, seconds)


def generate(bench: EvaluationContext, batch: Batch, hooks: Hooks) -> Sequence[str]:
    """Greedy summaries of a batch's sources."""
    from transformers import StoppingCriteria, StoppingCriteriaList

    class AskToStop(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: Any, *_: Any, **__: Any) -> Any:
            hooks.check_stop("evaluation")
            return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)

    bf16 = bench.precision != torch.float32
    with torch.autocast(bench.device.type, bench.precision, bf16):
        ids = bench.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=bench.max_tokens,
            do_sample=False,
            num_beams=1,
            stopping_criteria=StoppingCriteriaList([AskToStop()]),
        )
    texts: list[str] = bench.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return texts


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE), use_stemmer=True)


def rouge(reference: str, summary: str) -> tuple[float, ...]:
    """ROUGE-1, ROUGE-2 and ROUGE-L F1 in percent, with Porter stemming."""
    found = _scorer().score(reference, summary)
    return tuple(100.0 * found[name].fmeasure for name in ROUGE)

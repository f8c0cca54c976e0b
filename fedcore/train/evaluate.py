"""Evaluation on a device's validation split: token loss, and ROUGE of greedy summaries."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch

from fedcore.errors import TrainingError
from fedcore.train.batches import Batch, SpecialTokens, collate
from fedcore.train.kernels import KernelContext, kernels_of
from fedcore.train.loop import chunks
from fedcore.train.telemetry import EvaluationProgress, Hooks
from fedcore.train.tokenization import Prepared

BATCH = 16
ROUGE = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Evaluation:
    """Mean token loss (nats) and ROUGE F1 in percent (0 to 100), mean over the examples.

    ``tokens`` counts the target tokens that the loss is a mean of. No text is stored: none may
    leave the device. ``more`` holds a method's further measures by name; ``personal_loss`` and so
    on are those of a personalised model.
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
        """All measures by name, as a device reports them."""
        flat = asdict(self)
        more = flat.pop("more")
        return {**flat, **more}


def with_personal(shared: Evaluation, personal: Evaluation) -> Evaluation:
    """The evaluation of a shared model, with that of a personalised one on the same examples."""
    measured = {f"personal_{name}": getattr(personal, name) for name in ("loss", *ROUGE)}
    seconds = shared.seconds + personal.seconds
    return replace(shared, seconds=seconds, more={**shared.more, **measured})


@dataclass(frozen=True)
class EvaluationContext:
    """The model of an evaluation and how to run it. ``max_tokens`` bounds each summary.

    ``kernels`` computes the loss, as in training.
    """

    model: Any
    tokenizer: Any
    max_tokens: int
    device: torch.device
    precision: torch.dtype
    kernels: str = "plain"


@torch.no_grad()
def evaluate(context: EvaluationContext, prepared: Prepared, hooks: Hooks) -> Evaluation:
    """Evaluate the model's present weights. Raises Stopped when asked to stop."""
    began = time.perf_counter()
    context.model.eval()
    examples = prepared.validation
    kernel_context = KernelContext(
        context.model, context.device, context.precision, 0.0, checkpointing=False, seed=0
    )
    kernels = kernels_of(context.kernels, kernel_context)
    rows = sorted(range(len(examples)), key=lambda row: (examples[row].lengths, row))
    losses, tokens = 0.0, 0
    scores: list[tuple[float, ...]] = []
    for part in chunks(rows, BATCH):
        hooks.check_stop("evaluation")
        batch_examples = [examples[row] for row in part]
        loaded = kernels.load(batch_examples)
        losses += float(kernels.loss(kernels.forward(loaded, 0), loaded))
        batch = collate(batch_examples, SpecialTokens.of(context.model.config), context.device)
        tokens += batch.target_tokens
        texts = generate(context, batch, hooks)
        scores += [rouge(prepared.references[row], text) for row, text in zip(part, texts)]  # noqa: B905
        hooks.progress(EvaluationProgress(len(scores), len(rows), time.perf_counter() - began))
    loss = losses / tokens
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise TrainingError(f"the validation loss is {loss}; the global weights are not usable")
    one, two, longest = (sum(column) / len(scores) for column in zip(*scores))  # noqa: B905
    seconds = time.perf_counter() - began
    return Evaluation(loss, one, two, longest, len(rows), tokens, seconds)


def generate(context: EvaluationContext, batch: Batch, hooks: Hooks) -> Sequence[str]:
    """Greedy summaries of a batch's sources."""
    from transformers import StoppingCriteria, StoppingCriteriaList

    class AskToStop(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: Any, *_: Any, **__: Any) -> Any:
            hooks.check_stop("evaluation")
            return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)

    bf16 = context.precision != torch.float32
    with torch.autocast(context.device.type, context.precision, bf16):
        ids = context.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=context.max_tokens,
            do_sample=False,
            num_beams=1,
            stopping_criteria=StoppingCriteriaList([AskToStop()]),
        )
    texts: list[str] = context.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return texts


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE), use_stemmer=True)


def rouge(reference: str, summary: str) -> tuple[float, ...]:
    """ROUGE-1, ROUGE-2 and ROUGE-L F1 in percent, with Porter stemming."""
    scores = _scorer().score(reference, summary)
    return tuple(100.0 * scores[name].fmeasure for name in ROUGE)

"""Rewards of a device's summaries. Decoded texts are not stored, logged or sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fedcore.methods.pfit.reward_table import Scorer, Texts
from fedcore.spec.job import JobSpec
from fedcore.train.batches import SpecialTokens, collate
from fedcore.train.evaluate import BATCH, EvaluationContext, generate
from fedcore.train.loop import TrainingTask, chunks
from fedcore.train.telemetry import Hooks
from fedcore.train.tokenization import Prepared, TokenizedExample


@dataclass(frozen=True)
class RewardReader:
    """Decodes a device's examples for its rewards. ``spec``: the job with its overrides."""

    spec: JobSpec
    prepared: Prepared
    tokenizer: Any
    scorer: Scorer

    @classmethod
    def of(cls, spec: JobSpec, prepared: Prepared, tokenizer: Any) -> RewardReader:
        return cls(spec, prepared, tokenizer, Scorer(spec.method.rewards))

    def reward(self, row: int, tokens: Sequence[int]) -> float:
        """The reward of a sampled summary of training example ``row``."""
        example: TokenizedExample = self.prepared.train[row]
        source, reference = self._source(example), self._text(example.target)
        return self.scorer(row, Texts(source, reference, self._text(tokens)))

    @torch.no_grad()
    def mean_reward(self, work: TrainingTask, hooks: Hooks) -> float:
        """Mean reward of the model's greedy summaries of the validation part."""
        data, examples = self.spec.data, self.prepared.validation
        bench = EvaluationContext(
            work.model, self.tokenizer, data.max_target_tokens, work.device, work.precision
        )
        signs, total = SpecialTokens.of(work.model.config), 0.0
        for rows in chunks(range(len(examples)), BATCH):
            batch = collate([examples[row] for row in rows], signs, work.device)
            for row, summary in zip(rows, generate(bench, batch, hooks), strict=True):
                reference = self.prepared.references[row]
                texts = Texts(self._source(examples[row]), reference, summary)
                total += self.scorer(row, texts)
        return total / len(examples)

    def _source(self, example: TokenizedExample) -> str:
        return self._text(example.source).removeprefix(self.spec.data.prefix.strip()).strip()

    def _text(self, tokens: Iterable[int]) -> str:
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text

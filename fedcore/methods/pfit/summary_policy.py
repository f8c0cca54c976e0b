"""The model as a policy: samples summaries and gives their log-probabilities.

It uses the padded forward passes of transformers. Their values do not depend on whether gradients
are computed, so the ratio of a policy to itself is 1 and its divergence from itself 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedcore.train.batches import Batch, SpecialTokens
from fedcore.train.loop import TrainingTask
from fedcore.train.telemetry import Hooks


@dataclass(frozen=True)
class SampledSummaries:
    """Summaries drawn from a policy: ``tokens`` (rows, longest), ``mask`` up to the end token.

    The samples of one prompt are neighbours: row ``prompt * samples + number``.
    """

    tokens: Tensor
    mask: Tensor

    @property
    def lengths(self) -> list[int]:
        return [int(count) for count in self.mask.sum(1)]


class SummaryPolicy:
    """A model at its live weights; ``temperature`` divides all its logits."""

    def __init__(self, work: TrainingTask, temperature: float, max_tokens: int) -> None:
        unwrapped = getattr(work.model, "get_base_model", None)
        self._model = unwrapped() if unwrapped else work.model
        self._encoder = self._model.get_encoder()
        self._device, self._precision = work.device, work.precision
        self._temperature, self._max_tokens = temperature, max_tokens
        self._signs, self._end = (
            SpecialTokens.of(self._model.config),
            self._model.config.eos_token_id,
        )
        # The hidden states of a prompt then do not change during a round.
        self.encoder_is_fixed = not any(
            parameter.requires_grad for parameter in self._encoder.parameters()
        )

    def encode(self, batch: Batch) -> Tensor:
        """The encoder's hidden states of each prompt: (prompts, source positions, width)."""
        trains = torch.is_grad_enabled() and not self.encoder_is_fixed
        with torch.set_grad_enabled(trains), self._autocast():
            hidden: Tensor = self._encoder(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask
            ).last_hidden_state
        return hidden

    @torch.no_grad()
    def sample(
        self, hidden: Tensor, batch: Batch, samples: int, generator: torch.Generator, hooks: Hooks
    ) -> SampledSummaries:
        """``samples`` summaries of each prompt. Raises Stopped if training is stopped."""
        memory, mask = _repeated(hidden, batch, samples)
        rows = memory.shape[0]
        last = torch.full((rows, 1), self._signs.start, device=self._device)
        unfinished = torch.ones(rows, 1, dtype=torch.bool, device=self._device)
        tokens, mask_columns, cache = [], [], None
        for _ in range(self._max_tokens):
            hooks.check_stop("drawing summaries")
            out = self._decode(memory, mask, last, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            probabilities = torch.softmax(out.logits[:, -1].float() / self._temperature, -1)
            sampled = torch.multinomial(probabilities, 1, generator=generator)
            last = torch.where(unfinished, sampled, self._signs.pad)
            tokens.append(last)
            mask_columns.append(unfinished)
            unfinished = unfinished & (last != self._end)
            if not bool(unfinished.any()):
                break
        return SampledSummaries(torch.cat(tokens, 1), torch.cat(mask_columns, 1))

    def log_probs(self, hidden: Tensor, batch: Batch, summaries: SampledSummaries) -> Tensor:
        """Log-probability of each sampled token, (rows, longest) in fp32; 0 outside the mask."""
        memory, mask = _repeated(hidden, batch, len(summaries.tokens) // len(hidden))
        shifted = torch.full_like(summaries.tokens, self._signs.start)
        shifted[:, 1:] = summaries.tokens[:, :-1]
        logits = self._decode(memory, mask, shifted, use_cache=False).logits
        scores = torch.log_softmax(logits.float() / self._temperature, -1)
        log_probs = scores.gather(-1, summaries.tokens[..., None]).squeeze(-1)
        return log_probs.masked_fill(~summaries.mask, 0.0)

    def _decode(self, memory: Tensor, mask: Tensor, inputs: Tensor, **more: Any) -> Any:
        with self._autocast():
            return self._model(
                encoder_outputs=(memory,), attention_mask=mask, decoder_input_ids=inputs, **more
            )

    def _autocast(self) -> torch.autocast:
        reduced = self._precision != torch.float32
        return torch.autocast(self._device.type, self._precision, reduced)


def _repeated(hidden: Tensor, batch: Batch, samples: int) -> tuple[Tensor, Tensor]:
    """Memory and mask of each sample's prompt."""
    rows = torch.arange(len(hidden), device=hidden.device).repeat_interleave(samples)
    return hidden[rows], batch.attention_mask[rows]


@contextmanager
def swapped_weights(
    live: Mapping[str, torch.nn.Parameter], fixed: Mapping[str, Tensor]
) -> Iterator[None]:
    """Replace the trainable weights for the duration of the block."""
    original = {name: parameter.data for name, parameter in live.items()}
    try:
        for name, parameter in live.items():
            parameter.data = fixed[name]
        yield
    finally:
        for name, parameter in live.items():
            parameter.data = original[name]

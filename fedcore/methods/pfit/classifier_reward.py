"""A reward by a sequence-classification model: how probable a label of it is for the summary."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from fedcore.errors import ModelError
from fedcore.model.quiet import quiet_libraries

LONGEST = 512  # tokens of a summary that are looked at


class Classifier:
    """``MODEL`` or ``MODEL@LABEL``, by the hub's name or a folder; loaded at the first summary.

    Our choices: the model sees the summary alone. Without a label it is the last one (the positive
    one of two); a model with a single output says a probability by its sigmoid. fp32, on the CPU.
    """

    def __init__(self, argument: str) -> None:
        name, _, label = argument.rpartition("@") if "@" in argument else (argument, "", "")
        self.name, self.label = name, label

    @torch.no_grad()
    def __call__(self, source: str, reference: str, summary: str) -> float:
        del source, reference
        tokenizer, model = _loaded(self.name)
        most = min(LONGEST, getattr(model.config, "max_position_embeddings", LONGEST))
        ids = tokenizer(summary, return_tensors="pt", truncation=True, max_length=most)
        logits = model(**ids).logits[0].float()
        if len(logits) == 1:
            return float(torch.sigmoid(logits[0]))
        return float(torch.softmax(logits, -1)[self._place(model.config)])

    def _place(self, config: Any) -> int:
        """Where the label stands. Raises ModelError, naming those there are."""
        labels = {str(name): int(place) for place, name in config.id2label.items()}
        if not self.label:
            return max(labels.values())
        if self.label not in labels:
            known = ", ".join(labels)
            raise ModelError(f"{self.name} has no label {self.label!r}; its labels are {known}")
        return labels[self.label]


@lru_cache(maxsize=4)
def _loaded(name: str) -> tuple[Any, Any]:
    with quiet_libraries():
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.float32)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ModelError(
                f"the reward model {name} cannot be loaded ({type(error).__name__}); give the name "
                "of a sequence-classification model on the hub, or a folder that each device has"
            ) from error
    return tokenizer, model.eval()

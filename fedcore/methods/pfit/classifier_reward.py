"""A reward by a sequence-classification model: the probability of a label for the summary."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from fedcore.errors import ModelError
from fedcore.model.quiet import quiet_libraries

MAX_TOKENS = 512  # of a summary; the rest is cut off


class Classifier:
    """``MODEL`` or ``MODEL@LABEL``, by the hub's name or a folder; loaded at the first summary.

    Our choices: the model sees the summary alone. The default label is the last one (the positive
    one of two). A single output is a logit of its probability. fp32, on the CPU.
    """

    def __init__(self, argument: str) -> None:
        name, _, label = argument.rpartition("@") if "@" in argument else (argument, "", "")
        self.name, self.label = name, label

    @torch.no_grad()
    def __call__(self, source: str, reference: str, summary: str) -> float:
        del source, reference
        tokenizer, model = _loaded(self.name)
        most = min(MAX_TOKENS, getattr(model.config, "max_position_embeddings", MAX_TOKENS))
        ids = tokenizer(summary, return_tensors="pt", truncation=True, max_length=most)
        logits = model(**ids).logits[0].float()
        if len(logits) == 1:
            return float(torch.sigmoid(logits[0]))
        labels = {str(name): int(place) for place, name in model.config.id2label.items()}
        if self.label and self.label not in labels:
            known = ", ".join(labels)
            raise ModelError(f"{self.name} has no label {self.label!r}; its labels are {known}")
        place = labels[self.label] if self.label else max(labels.values())
        return float(torch.softmax(logits, -1)[place])


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

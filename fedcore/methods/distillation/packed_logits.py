"""Teacher logits compressed to the top k tokens and the mass of the rest.

A row belongs to one target token of the bridge samples, teacher-forced. Of its distribution
``softmax(logits / T)`` the log-probabilities of the k likeliest tokens remain, and the log of the
mass of all others as one number. With k = vocabulary the distribution is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcore.errors import ModelError

FLOOR = -1e4  # stands for log 0: its exponential is 0 in fp32, and fp16 holds it
CHUNK_ELEMENTS = 1 << 23  # of dense distributions in memory at a time


@dataclass(frozen=True)
class PackedLogits:
    """Distributions over ``vocabulary`` tokens at ``temperature``.

    ``values`` (rows, k): log-probabilities, fp32. ``places`` (rows, k): their token ids, int64,
    ascending. ``rest`` (rows): log of the mass of all other tokens, FLOOR where there are none.
    """

    values: Tensor
    places: Tensor
    rest: Tensor
    vocabulary: int
    temperature: float

    def __len__(self) -> int:
        return len(self.values)

    @property
    def top_k(self) -> int:
        return self.values.shape[1]

    @property
    def complete(self) -> bool:
        """Whether the rows contain every token, so that the rest has no mass."""
        return self.top_k == self.vocabulary

    def select(self, rows: Tensor) -> PackedLogits:
        """These rows, in this order."""
        return replace(
            self, values=self.values[rows], places=self.places[rows], rest=self.rest[rows]
        )

    def to(self, device: torch.device) -> PackedLogits:
        return replace(
            self,
            values=self.values.to(device),
            places=self.places.to(device),
            rest=self.rest.to(device),
        )

    def probabilities(self) -> Tensor:
        """(rows, vocabulary); the mass of the rest is spread evenly over its tokens."""
        others = max(1, self.vocabulary - self.top_k)
        share = (self.rest.exp() / others).unsqueeze(1)
        dense = share.expand(-1, self.vocabulary).clone()
        return dense.scatter_(1, self.places, self.values.exp())


def pack(logits: Tensor, top_k: int, temperature: float) -> PackedLogits:
    """The ``top_k`` likeliest tokens of each row of logits (rows, vocabulary), in their precision.

    Raises ModelError for a temperature not above 0, or more tokens than the vocabulary has.
    """
    vocabulary = logits.shape[1]
    check(top_k, temperature, vocabulary)
    scores = torch.log_softmax(logits / temperature, -1)
    places = scores.topk(top_k, -1).indices.sort(-1).values
    return PackedLogits(
        scores.gather(1, places).clamp(FLOOR, 0.0),
        places,
        remainder(scores, places).clamp(FLOOR, 0.0),
        vocabulary,
        temperature,
    )


def check(top_k: int, temperature: float, vocabulary: int) -> None:
    """Raise ModelError for a temperature or a number of tokens out of range."""
    if not temperature > 0:
        raise ModelError(f"a temperature must be above 0, not {temperature:g}")
    if not 1 <= top_k <= vocabulary:
        raise ModelError(
            f"{top_k} tokens of each distribution are to be sent, but the vocabulary has "
            f"{vocabulary}; give a number from 1 to {vocabulary}"
        )


def remainder(scores: Tensor, places: Tensor) -> Tensor:
    """Log of the mass outside ``places`` of each row of log-probabilities; -inf for none."""
    if places.shape[1] == scores.shape[1]:
        return scores.new_full((len(scores),), -torch.inf)
    return scores.scatter(1, places, -torch.inf).logsumexp(-1)


def divergence(teacher: PackedLogits, logits: Tensor) -> Tensor:
    """T^2 times the sum over the rows of ``KL(teacher || softmax(logits / T))``, in nats.

    ``logits``: the student's, (rows, vocabulary). Exact if the teacher is complete; otherwise the
    tokens of the rest are one outcome on both sides, which never makes the sum larger. The factor
    T^2 makes the gradient's size independent of T, so that beta means the same at every
    temperature (Hinton et al., arXiv 1503.02531, section 2).
    """
    if logits.shape != (len(teacher), teacher.vocabulary):
        raise ModelError(
            f"the teacher has {teacher.vocabulary} tokens at {len(teacher)} places, the student "
            f"{logits.shape[1]} at {len(logits)}; take models of one family"
        )
    scores = torch.log_softmax(logits / teacher.temperature, -1)
    total = _kl_terms(teacher.values, scores.gather(1, teacher.places)).sum()
    if not teacher.complete:
        total = total + _kl_terms(teacher.rest, remainder(scores, teacher.places)).sum()
    return total * teacher.temperature**2


def _kl_terms(log_p: Tensor, log_q: Tensor) -> Tensor:
    """p (log p - log q) of each outcome; 0 where p is 0."""
    return log_p.exp() * (log_p - log_q)


def mean(parts: Sequence[PackedLogits], weights: Sequence[float]) -> PackedLogits:
    """The mixture of several teachers, with as many tokens as the first has.

    Our choice: a token that a teacher's top k leaves out gets an even share of the mass of its
    rest. Exact if every teacher is complete.
    """
    first, total = parts[0], sum(weights)
    domains = {(len(part), part.vocabulary, part.temperature) for part in parts}
    if len(domains) > 1:
        raise ModelError(
            "teachers can only be averaged over the same places, with one vocabulary and one "
            "temperature; these differ"
        )
    size = max(1, CHUNK_ELEMENTS // first.vocabulary)
    chunks = []
    for start in range(0, len(first), size):
        rows = torch.arange(start, min(start + size, len(first)))
        dense = sum(
            part.select(rows).probabilities() * (weight / total)
            for part, weight in zip(parts, weights, strict=True)
        )
        assert isinstance(dense, Tensor)
        chunks.append(pack(dense.log(), first.top_k, 1.0))
    return joined(chunks, first.temperature)


def joined(parts: Sequence[PackedLogits], temperature: float) -> PackedLogits:
    """Concatenate the rows."""
    return PackedLogits(
        torch.cat([part.values for part in parts]),
        torch.cat([part.places for part in parts]),
        torch.cat([part.rest for part in parts]),
        parts[0].vocabulary,
        temperature,
    )

"""What a model says at every target token, small enough to travel: top-k and their remainder.

A row is one target token of the bridge samples, teacher-forced. Of its distribution
``softmax(logits / T)`` the k likeliest tokens are kept with their log-probabilities, and the log of
the mass of all others as one number. With k = vocabulary nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcore.errors import ModelError

FLOOR = -1e4  # stands for log 0: its exponential is 0 in fp32, and fp16 holds it
PIECE = 1 << 23  # numbers of a dense distribution that exist at a time


@dataclass(frozen=True)
class PackedLogits:
    """Distributions over ``vocabulary`` tokens, made at ``temperature``.

    ``values`` (rows, k): log-probabilities, fp32; ``places`` (rows, k): their token ids, int64,
    ascending; ``rest`` (rows): log of the mass of all other tokens, FLOOR where there are none.
    """

    values: Tensor
    places: Tensor
    rest: Tensor
    vocabulary: int
    temperature: float

    def __len__(self) -> int:
        return len(self.values)

    @property
    def kept(self) -> int:
        return self.values.shape[1]

    @property
    def whole(self) -> bool:
        """Whether every token is there, so that nothing remains."""
        return self.kept == self.vocabulary

    def some(self, rows: Tensor) -> PackedLogits:
        """Those rows, in their order."""
        at = self.values[rows], self.places[rows], self.rest[rows]
        return replace(self, values=at[0], places=at[1], rest=at[2])

    def to(self, device: torch.device) -> PackedLogits:
        at = self.values.to(device), self.places.to(device), self.rest.to(device)
        return replace(self, values=at[0], places=at[1], rest=at[2])

    def probabilities(self) -> Tensor:
        """(rows, vocabulary); the remainder is spread evenly over the tokens it stands for."""
        others = max(1, self.vocabulary - self.kept)
        share = (self.rest.exp() / others).unsqueeze(1)
        dense = share.expand(-1, self.vocabulary).clone()
        return dense.scatter_(1, self.places, self.values.exp())


def pack(logits: Tensor, kept: int, temperature: float) -> PackedLogits:
    """The ``kept`` likeliest tokens of each row of logits (rows, vocabulary), in their precision.

    Raises ModelError for a temperature not above 0, or more tokens than the vocabulary has.
    """
    vocabulary = logits.shape[1]
    check(kept, temperature, vocabulary)
    scores = torch.log_softmax(logits / temperature, -1)
    places = scores.topk(kept, -1).indices.sort(-1).values
    return PackedLogits(
        scores.gather(1, places).clamp(FLOOR, 0.0),
        places,
        remainder(scores, places).clamp(FLOOR, 0.0),
        vocabulary,
        temperature,
    )


def check(kept: int, temperature: float, vocabulary: int) -> None:
    """Raise ModelError for what no distribution can be packed with."""
    if not temperature > 0:
        raise ModelError(f"a temperature is above 0, not {temperature:g}")
    if not 1 <= kept <= vocabulary:
        raise ModelError(
            f"{kept} tokens of each distribution are to travel, but the vocabulary has "
            f"{vocabulary}; give a number from 1 to {vocabulary}"
        )


def remainder(scores: Tensor, places: Tensor) -> Tensor:
    """Log of the mass outside ``places`` of each row of log-probabilities; -inf where none is."""
    if places.shape[1] == scores.shape[1]:
        return scores.new_full((len(scores),), -torch.inf)
    return scores.scatter(1, places, -torch.inf).logsumexp(-1)


def divergence(told: PackedLogits, logits: Tensor) -> Tensor:
    """T^2 times the sum over the rows of ``KL(told || softmax(logits / T))``, in nats.

    Exact where every token was kept; else all others are one outcome on both sides, which never
    makes it larger. T^2 keeps the gradient's size whatever T is, so that beta means the same at
    every temperature (Hinton et al., arXiv 1503.02531, section 2). ``logits``: (rows, vocabulary).
    """
    if logits.shape != (len(told), told.vocabulary):
        raise ModelError(
            f"the teacher speaks {told.vocabulary} tokens at {len(told)} places, the student "
            f"{logits.shape[1]} at {len(logits)}; take models of one family"
        )
    scores = torch.log_softmax(logits / told.temperature, -1)
    total = _outcome(told.values, scores.gather(1, told.places)).sum()
    if not told.whole:
        total = total + _outcome(told.rest, remainder(scores, told.places)).sum()
    return total * told.temperature**2


def _outcome(wanted: Tensor, found: Tensor) -> Tensor:
    """p (log p - log q) of each outcome; 0 where p is."""
    return wanted.exp() * (wanted - found)


def mean(parts: Sequence[PackedLogits], weights: Sequence[float]) -> PackedLogits:
    """The mixture of several teachers, packed with as many tokens as the first keeps.

    Our choice: a teacher that did not name a token gives it an even share of its remainder. Exact
    where every teacher kept the whole vocabulary.
    """
    first, total = parts[0], sum(weights)
    for part in parts:
        if _about(part) != _about(first):
            raise ModelError(
                "teachers that are averaged speak of the same places, with one vocabulary and one "
                "temperature; these do not"
            )
    size = max(1, PIECE // first.vocabulary)
    found = []
    for start in range(0, len(first), size):
        rows = torch.arange(start, min(start + size, len(first)))
        dense = sum(
            part.some(rows).probabilities() * (weight / total)
            for part, weight in zip(parts, weights, strict=True)
        )
        assert isinstance(dense, Tensor)
        found.append(pack(dense.log(), first.kept, 1.0))
    return joined(found, first.temperature)


def _about(part: PackedLogits) -> tuple[int, int, float]:
    return len(part), part.vocabulary, part.temperature


def joined(parts: Sequence[PackedLogits], temperature: float) -> PackedLogits:
    """Rows one after the other."""
    return PackedLogits(
        torch.cat([part.values for part in parts]),
        torch.cat([part.places for part in parts]),
        torch.cat([part.rest for part in parts]),
        parts[0].vocabulary,
        temperature,
    )

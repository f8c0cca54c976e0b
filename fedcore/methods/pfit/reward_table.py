"""The rewards by name, and the weighted sum of some of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fedcore.errors import TrainingError
from fedcore.methods.pfit.classifier_reward import Classifier
from fedcore.methods.pfit.text_rewards import Brevity, leak, overlap
from fedcore.spec.rewards import reward_of

Measure = Callable[[str, str, str], float]


class Texts(NamedTuple):
    """One summary and what it is of. Never to be logged, nor to leave the device."""

    source: str
    reference: str
    summary: str


def _always(measure: Measure) -> Callable[[str], Measure]:
    def made(argument: str) -> Measure:
        del argument
        return measure

    return made


# By name, each made of its argument: 0 to 1, penalties -1 to 0. Names as in spec.rewards.REWARDS.
MEASURES: Mapping[str, Callable[[str], Measure]] = {
    "overlap": _always(overlap),
    "brevity": Brevity,
    "leak": _always(leak),
    "classifier": Classifier,
}


class Scorer:
    """The weighted sum of rewards, as a specification writes them (``fedcore.spec.rewards``)."""

    def __init__(self, words: Sequence[str]) -> None:
        wanted = [reward_of(word) for word in words]
        self._parts = [
            (item.label, MEASURES[item.name](item.argument), item.weight)
            for item in wanted
            if item.weight
        ]

    def __call__(self, index: int, texts: Texts) -> float:
        """What a summary of example ``index`` is worth; 0 where no reward has a weight.

        Raises TrainingError for a reward that is not finite: by name and index, never by text.
        """
        return sum(weight * value for weight, value in self._values(index, texts))

    def _values(self, index: int, texts: Texts) -> list[tuple[float, float]]:
        found = []
        for label, measure, weight in self._parts:
            value = measure(*texts)
            if not math.isfinite(value):
                raise TrainingError(
                    f"the reward {label} of example {index} is {value}; mend the reward or leave "
                    "it out of method.rewards"
                )
            found.append((weight, value))
        return found

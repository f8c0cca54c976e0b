"""Rewards by name, and their weighted sum."""

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
    """One summary with its source and reference. Never log it or send it from the device."""

    source: str
    reference: str
    summary: str


def _always(measure: Measure) -> Callable[[str], Measure]:
    def factory(argument: str) -> Measure:
        del argument
        return measure

    return factory


# By name, each made of its argument: 0 to 1, penalties -1 to 0. Names as in spec.rewards.REWARDS.
MEASURES: Mapping[str, Callable[[str], Measure]] = {
    "overlap": _always(overlap),
    "brevity": Brevity,
    "leak": _always(leak),
    "classifier": Classifier,
}


class Scorer:
    """The weighted sum of the rewards of a specification (``fedcore.spec.rewards``)."""

    def __init__(self, words: Sequence[str]) -> None:
        rewards = [reward_of(word) for word in words]
        self._parts = [
            (item.label, MEASURES[item.name](item.argument), item.weight)
            for item in rewards
            if item.weight
        ]

    def __call__(self, index: int, texts: Texts) -> float:
        """The reward of a summary of example ``index``; 0 if no reward has a weight.

        Raises TrainingError for a reward that is not finite. It names reward and index, never text.
        """
        terms = []
        for label, measure, weight in self._parts:
            value = measure(*texts)
            if not math.isfinite(value):
                raise TrainingError(
                    f"the reward {label} of example {index} is {value}; mend the reward or leave "
                    "it out of method.rewards"
                )
            terms.append(weight * value)
        return sum(terms)

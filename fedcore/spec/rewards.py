"""Rewards by name: how a specification writes them, and what is wrong with one that cannot be.

A reward is ``NAME`` or ``NAME:ARGUMENT``, its weight follows after ``=`` (1 where left out):
``overlap``, ``brevity:0.2=0.5``, ``classifier:FOLDER@LABEL=2``. What the names compute is in
``fedcore.methods.pfit``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedcore.spec.checks import parsed_number
from fedcore.spec.options.ranks import entry_for

ArgumentCheck = Callable[[str], str]  # the fault of an argument; '' where it has none
SHARE = 0.15  # of the source's words, where ``brevity`` names no other
MOST = 100.0  # the largest weight
JOIN = "+"  # between the weights of one device


@dataclass(frozen=True)
class Reward:
    """One reward and its weight. ``argument`` is '' where none is given."""

    name: str
    argument: str
    weight: float

    @property
    def label(self) -> str:
        return f"{self.name}:{self.argument}" if self.argument else self.name


def _no_argument(argument: str) -> str:
    return "takes no argument" if argument else ""


def _share(argument: str) -> str:
    value = parsed_number(argument) if argument else SHARE
    return "" if value is not None and 0 < value < 1 else "give a share above 0 and below 1"


def _model(argument: str) -> str:
    model = argument.rpartition("@")[0] if "@" in argument else argument
    return "" if model else "name a sequence-classification model or its folder after the colon"


# What each reward asks of its argument.
REWARDS: Mapping[str, ArgumentCheck] = {
    "overlap": _no_argument,
    "brevity": _share,
    "leak": _no_argument,
    "classifier": _model,
}
PENALTIES = frozenset({"leak"})  # from -1 to 0, where the others are from 0 to 1


def reward_of(word: str) -> Reward:
    """A reward as it is written; one that ``fault_of`` finds nothing wrong with."""
    label, equals, weight = word.rpartition("=")
    if not equals:
        label, weight = word, "1"
    name, _, argument = label.partition(":")
    return Reward(name, argument, float(weight))


def fault_of(word: str) -> str:
    """What is wrong with a written reward, and what to do; '' where nothing is."""
    label, equals, weight = word.rpartition("=")
    label = label if equals else word
    name, _, argument = label.partition(":")
    if name not in REWARDS:
        return f"unknown reward; choose from {', '.join(REWARDS)}"
    if message := REWARDS[name](argument):
        return message
    return weight_fault(weight) if equals else ""


def weight_fault(word: str) -> str:
    value = parsed_number(word)
    fits = value is not None and 0 <= value <= MOST
    return "" if fits else f"give a weight from 0 to {MOST:g}"


def weights_fault(rewards: Sequence[str], entry: str) -> str:
    """What is wrong with one device's entry of weights, such as ``1+0`` or ``pi=0+1``."""
    weights = entry.rpartition("=")[2].split(JOIN)
    if len(weights) != len(rewards):
        return f"give {len(rewards)} weights joined by {JOIN}, one for each reward in order"
    return next((message for word in weights if (message := weight_fault(word))), "")


def weighted(rewards: Sequence[str], weights: Sequence[str], *device: int | str) -> list[str]:
    """The rewards with one device's own weights; ``device``: its slot, name and machine."""
    slot, name, *machine = device
    entry = entry_for(weights, int(slot), str(name), *map(str, machine))
    if not entry:
        return list(rewards)
    entry_weights = entry.split(JOIN)
    labels = [reward_of(word).label for word in rewards]
    return [f"{label}={weight}" for label, weight in zip(labels, entry_weights, strict=True)]


def described(words: Sequence[str]) -> str:
    """The sum as a person reads it: ``overlap + 0.5 × brevity:0.1``; what weighs 0 is left out."""
    counted = [reward for word in words if (reward := reward_of(word)).weight]
    terms = [
        reward.label if reward.weight == 1 else f"{reward.weight:g} × {reward.label}"
        for reward in counted
    ]
    return " + ".join(terms) or "nothing"


def extremes(words: Sequence[str]) -> tuple[float, float]:
    """The least and the most that the sum can be."""
    rewards = [reward_of(word) for word in words]
    least = sum(reward.weight for reward in rewards if reward.name in PENALTIES)
    return 0.0 - least, sum(reward.weight for reward in rewards if reward.name not in PENALTIES)

"""Rewards computed from the words alone. Each takes source, reference and summary."""

from __future__ import annotations

import re

from fedcore.spec.rewards import SHARE
from fedcore.train.evaluate import rouge

WORD = re.compile(r"\w+")
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
# Seven digits or more, with the signs between that phone and card numbers are written with.
LONG_NUMBER = re.compile(r"\+?\(?\d(?:[ ()./-]{0,2}\d){6,}")
WORST = 3  # matches from which on ``leak`` is -1


def overlap(source: str, reference: str, summary: str) -> float:
    """ROUGE-L F1 with the reference, 0 to 1 (Lin 2004), with Porter stemming."""
    del source
    return rouge(reference, summary)[2] / 100.0


class Brevity:
    """1 up to a share of the source's words, then falling to 0 at the source's length.

    Our choice: an empty summary gets 0.
    """

    def __init__(self, argument: str) -> None:
        self.share = float(argument) if argument else SHARE

    def __call__(self, source: str, reference: str, summary: str) -> float:
        del reference
        length, words = len(WORD.findall(source)), len(WORD.findall(summary))
        if not words:
            return 0.0
        if not length:
            return 1.0
        over = (words / length - self.share) / (1 - self.share)
        return 1.0 - min(1.0, max(0.0, over))


def leak(source: str, reference: str, summary: str) -> float:
    """A penalty of a third for each e-mail address and number of seven digits or more, at most 1.

    Those of the reference count as well.
    """
    del source, reference
    matches = len(EMAIL.findall(summary)) + len(LONG_NUMBER.findall(summary))
    return -min(matches, WORST) / WORST

"""Which devices take part in a round: a function of the seed, never of the moment it is asked."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from fedcore.seeds import derive
from fedcore.spec import ParticipationSpec


@dataclass(frozen=True)
class Selection:
    """``members`` take part; the round may close as soon as ``target`` of them have reported."""

    members: tuple[str, ...]
    target: int


def needed(candidates: int, participation: ParticipationSpec) -> int:
    """How many devices of ``candidates`` a round wants before over-selection."""
    share = math.ceil(round(participation.fraction * candidates, 9))
    return min(candidates, max(participation.minimum, share))


def select(
    candidates: Sequence[str], participation: ParticipationSpec, seed: int, round_number: int
) -> Selection:
    """Draw the members of one round uniformly without replacement, in the candidates' order.

    ``over_selection`` asks for that share of extra devices; the round does not wait for them.
    """
    target = needed(len(candidates), participation)
    size = min(len(candidates), target + math.ceil(target * participation.over_selection - 1e-9))
    rng = random.Random(derive(seed, "select", round_number))
    drawn = set(rng.sample(range(len(candidates)), size))
    return Selection(tuple(name for i, name in enumerate(candidates) if i in drawn), target)


def quorum(target: int, participation: ParticipationSpec) -> int:
    """The smallest number of updates that may be folded when the deadline comes (at least 1)."""
    return max(1, min(target, math.ceil(round(participation.quorum * target, 9))))

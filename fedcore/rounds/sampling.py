"""Which devices take part in a round: a function of the seed, never of the moment it is asked."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fedcore.seeds import derive
from fedcore.spec.options.participation import ParticipationSpec


@dataclass(frozen=True)
class Selection:
    """``members`` take part; the round may close as soon as ``target`` of them have reported."""

    members: tuple[str, ...]
    target: int


def devices_needed(candidates: int, participation: ParticipationSpec) -> int:
    """How many devices of ``candidates`` a round wants before over-selection."""
    share = math.ceil(round(participation.fraction * candidates, 9))
    return min(candidates, max(participation.minimum, share))


def select(
    candidates: Sequence[str],
    participation: ParticipationSpec,
    seed: int,
    round_number: int,
    predicted: Mapping[str, float] | None = None,
) -> Selection:
    """Draw the members of one round uniformly without replacement, in the candidates' order.

    ``over_selection`` asks for that share of extra devices; the round does not wait for them.
    ``predicted`` are the seconds that devices are expected to take, for a job with tiers.
    """
    target = devices_needed(len(candidates), participation)
    pool = _tier(candidates, participation, derive(seed, "tier", round_number), predicted or {})
    size = min(len(pool), target + math.ceil(target * participation.over_selection - 1e-9))
    rng = random.Random(derive(seed, "select", round_number))
    drawn = set(rng.sample(range(len(pool)), size))
    members = tuple(name for i, name in enumerate(pool) if i in drawn)
    return Selection(members, min(target, size))


def tiers(predicted: Mapping[str, float], count: int, least: int) -> list[tuple[str, ...]]:
    """Devices of like speed together, the fastest group first; sizes differ by one at most.

    Fewer than ``count`` groups where one would hold fewer than ``least`` devices.
    """
    ordered = sorted(predicted, key=lambda name: (predicted[name], name))
    count = max(1, min(count, len(ordered) // max(1, least)))
    edges = [round(index * len(ordered) / count) for index in range(count + 1)]
    return [tuple(ordered[low:high]) for low, high in pairwise(edges)]


def _tier(
    candidates: Sequence[str],
    participation: ParticipationSpec,
    seed: int,
    predicted: Mapping[str, float],
) -> Sequence[str]:
    """The candidates that a round draws from: those of one tier, in their order.

    After TiFL (Chai et al. 2020, arXiv 2001.09249). Our choices: nothing is profiled beforehand,
    devices without a time go first while they fill a round, and count as of middling speed after
    that; a tier is drawn in proportion to its size, so that no device is asked more often than
    another. TiFL's adaptive variant, which prefers tiers of low accuracy, is left out.
    """
    if participation.tiers < 2:
        return candidates
    wanted = devices_needed(len(candidates), participation)
    unknown = [name for name in candidates if name not in predicted]
    if len(unknown) >= wanted:
        return unknown
    middle = statistics.median(predicted[name] for name in candidates if name in predicted)
    times = {name: predicted.get(name, middle) for name in candidates}
    groups = tiers(times, participation.tiers, wanted)
    (drawn,) = random.Random(seed).choices(groups, [len(group) for group in groups])
    return [name for name in candidates if name in drawn]


def quorum(target: int, participation: ParticipationSpec) -> int:
    """The smallest number of updates that may be folded when the deadline comes (at least 1)."""
    return max(1, min(target, math.ceil(round(participation.quorum * target, 9))))

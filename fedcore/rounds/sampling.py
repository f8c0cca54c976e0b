"""Client sampling: which devices take part in a round, as a function of the seed."""

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
    """``members`` take part; the round closes as soon as ``target`` of them have reported."""

    members: tuple[str, ...]
    target: int


def devices_needed(candidates: int, participation: ParticipationSpec) -> int:
    """How many of ``candidates`` devices a round asks for, before over-selection."""
    share = math.ceil(round(participation.fraction * candidates, 9))
    return min(candidates, max(participation.minimum, share))


def select(
    candidates: Sequence[str],
    participation: ParticipationSpec,
    seed: int,
    round_number: int,
    predicted: Mapping[str, float] | None = None,
) -> Selection:
    """Sample the members of a round uniformly without replacement, in the candidates' order.

    ``over_selection`` adds that share of extra devices, which the round does not wait for.
    ``predicted``: seconds that each device is expected to take, used by jobs with tiers.
    """
    target = devices_needed(len(candidates), participation)
    pool = _tier(candidates, participation, derive(seed, "tier", round_number), predicted or {})
    size = min(len(pool), target + math.ceil(target * participation.over_selection - 1e-9))
    rng = random.Random(derive(seed, "select", round_number))
    sample = set(rng.sample(range(len(pool)), size))
    members = tuple(name for i, name in enumerate(pool) if i in sample)
    return Selection(members, min(target, size))


def tiers(predicted: Mapping[str, float], count: int, least: int) -> list[tuple[str, ...]]:
    """Groups of devices of similar speed, the fastest first; sizes differ by one at most.

    There are fewer than ``count`` groups if one would have fewer than ``least`` devices.
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
    """The candidates to sample from: one tier, or all devices of a job without tiers.

    After TiFL (Chai et al. 2020, arXiv 2001.09249), without its adaptive variant, which prefers
    tiers of low accuracy. Our choices: devices are not profiled beforehand. Those without a
    predicted time are sampled first while they fill a round; after that they count as of median
    speed. A tier is drawn in proportion to its size, so every device is sampled equally often.
    """
    if participation.tiers < 2:
        return candidates
    least = devices_needed(len(candidates), participation)
    unknown = [name for name in candidates if name not in predicted]
    if len(unknown) >= least:
        return unknown
    middle = statistics.median(predicted[name] for name in candidates if name in predicted)
    times = {name: predicted.get(name, middle) for name in candidates}
    groups = tiers(times, participation.tiers, least)
    (tier,) = random.Random(seed).choices(groups, [len(group) for group in groups])
    return [name for name in candidates if name in tier]


def quorum(target: int, participation: ParticipationSpec) -> int:
    """The fewest updates that may be aggregated at the deadline (at least 1)."""
    return max(1, min(target, math.ceil(round(participation.quorum * target, 9))))

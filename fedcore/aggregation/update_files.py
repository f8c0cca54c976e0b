"""The updates of a fold: opened, and weighted by shares, filters and reweighting.

Every fold starts here, whether it then works on blocks of numbers or on products of factors.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from fedcore.aggregation.strategies import Strategy
from fedcore.aggregation.weighting import UpdateStats
from fedcore.errors import FoldError, WireError
from fedcore.spec.job import JobSpec

Key = tuple[int, int]  # slot, attempt
Data = TypeVar("Data")  # how a fold reads an update: one row of numbers, or tensors by name
SPARE_FILES = 512  # descriptors for everything else that the process has open


@dataclass(frozen=True)
class UpdateFile:
    """A device's update: a frame of deltas under any codec, its weight, its place in the fold.

    The key (slot, attempt) fixes the order in which updates are summed, so each may occur once.
    ``weight`` is the number of examples. ``scale`` multiplies the deltas themselves: a discount
    that shortens the whole step, where a lower weight would only favour the other updates.
    ``steps`` and ``loss_before`` are those of ``UpdateStats``. ``spec`` is the job with this
    device's overrides, where it has any.
    """

    path: Path
    weight: float
    slot: int
    attempt: int = 0
    scale: float = 1.0
    steps: int = 0
    loss_before: float | None = None
    spec: JobSpec | None = None

    @property
    def key(self) -> Key:
        return self.slot, self.attempt


@dataclass(frozen=True)
class WeightedUpdate(Generic[Data]):
    """An opened update: its share of the weight (sum 1) and the factor its deltas are scaled by.

    ``norm`` is 0 where nothing asked for it before the fold.
    """

    key: Key
    share: float
    factor: float
    data: Data
    norm: float
    size_bytes: int


class UpdatesRefused(FoldError):
    """Updates that cannot be folded, by key with the reason; fold again without them."""

    def __init__(self, reasons: Mapping[Key, str]) -> None:
        self.reasons = dict(reasons)
        texts = (f"the update of slot {key[0]}: {text}" for key, text in sorted(reasons.items()))
        super().__init__("; ".join(texts))


def open_updates(
    strategy: Strategy,
    updates: Sequence[UpdateFile],
    opener: Callable[[UpdateFile], tuple[Data, float]],
    factors: Mapping[Key, float] | None = None,
) -> tuple[WeightedUpdate[Data], ...]:
    """Open the updates with a share, in the order of their keys, and weight them.

    ``opener`` gives an update's data and norm. Known ``factors`` replace those of the strategy.
    Raises FoldError without updates, with two of one key, and for weights that are negative or sum
    to nothing; UpdatesRefused where an update does not fit or cannot be reweighted.
    """
    shares = shares_of(strategy, updates)
    files = sorted((file for file in updates if file.key in shares), key=lambda file: file.key)
    # Allow for two descriptors of each update: its mapped file, and whoever fetched it.
    count = len(files)
    needed = 2 * count + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))
    opened, refused = [], {}
    for file in files:
        try:
            opened.append(opener(file))
        except WireError as error:
            refused[file.key] = str(error)
    if refused:
        raise UpdatesRefused(refused)
    norms = [norm for _, norm in opened]
    if factors is None:
        factors = _factors_of(strategy, files, norms, shares)
    return tuple(
        WeightedUpdate(
            file.key, shares[file.key], factors[file.key], data, norm, file.path.stat().st_size
        )
        for file, (data, norm) in zip(files, opened, strict=True)
    )


def shares_of(strategy: Strategy, updates: Sequence[UpdateFile]) -> dict[Key, float]:
    """Each update's share of the total weight (sum 1); updates without one are left out."""
    if not updates:
        raise FoldError("no update arrived, so there is nothing to fold; the global weights stay")
    weights = {update.key: float(update.weight) for update in updates}
    if len(weights) != len(updates):
        raise FoldError("two updates claim the same slot and attempt; fold each once")
    if any(not math.isfinite(weight) or weight < 0 for weight in weights.values()):
        raise FoldError("an update has a weight that is negative or not finite")
    total = math.fsum(weights.values())
    if total <= 0:
        raise FoldError("all updates have weight zero; check the devices' example counts")
    if strategy.fold.weighted:
        return {key: weight / total for key, weight in weights.items()}
    positive = [key for key, weight in weights.items() if weight]
    return {key: 1 / len(positive) for key in positive}


def _factors_of(
    strategy: Strategy,
    files: Sequence[UpdateFile],
    norms: Sequence[float],
    shares: Mapping[Key, float],
) -> dict[Key, float]:
    """What each update is multiplied by: filters, then reweighting, then its own discount."""
    stats = [
        UpdateStats(norm, shares[file.key], file.steps, file.loss_before)
        for file, norm in zip(files, norms, strict=True)
    ]
    if strategy.reweighting is not None:
        faults = {
            file.key: strategy.reweighting.fault(item)
            for file, item in zip(files, stats, strict=True)
            if item.share
        }
        if refused := {key: fault for key, fault in faults.items() if fault}:
            raise UpdatesRefused(refused)
    factors = strategy_factors(strategy, stats)
    return {file.key: factor * file.scale for file, factor in zip(files, factors, strict=True)}


def strategy_factors(strategy: Strategy, stats: Sequence[UpdateStats]) -> list[float]:
    """Filters apply in order; each sees the norm after the previous one. Reweighting runs last.

    Updates of share 0 are not reweighted.
    """
    factors = []
    for item in stats:
        factor = 1.0
        for update_filter in strategy.filters:
            factor *= update_filter.factor(replace(item, norm=item.norm * factor))
        factors.append(factor)
    if strategy.reweighting is None:
        return factors
    filtered = [
        replace(item, norm=item.norm * factor) for item, factor in zip(stats, factors, strict=True)
    ]
    reweighted = iter(strategy.reweighting.factors([item for item in filtered if item.share]))
    return [
        factor * next(reweighted) if item.share else factor
        for factor, item in zip(factors, filtered, strict=True)
    ]

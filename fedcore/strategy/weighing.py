"""Strategies that give updates other shares than their numbers of examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedcore.errors import FoldError
from fedcore.strategy.stats import UpdateStats


@dataclass(frozen=True)
class Weighing:
    """What each update is multiplied with beside its share, found from what is known of all.

    ``needs_norms``: every update is then read twice.
    """

    name: str
    factors: Callable[[Sequence[UpdateStats]], list[float]]
    needs_norms: bool = False


def _normalised(stats: Sequence[UpdateStats]) -> list[float]:
    if any(item.steps < 1 for item in stats):
        raise FoldError("FedNova needs each update's number of local steps, and one has none")
    effective = math.fsum(item.share * item.steps for item in stats)
    return [effective / item.steps for item in stats]


# FedNova (Wang et al. 2020, arXiv 2007.07481) for local SGD at a constant rate: each update counts
# per step, and the whole goes as far as the mean number of steps.
NORMALISED = Weighing("normalised", _normalised)


def fair(q: float, local_rate: float) -> Weighing:
    """q-FedAvg (Li et al. 2019, arXiv 1905.10497, Algorithm 2), L = 1 / the devices' rate.

    ``step = sum F^q L d / sum (q F^(q-1) L^2 |d|^2 + L F^q)`` with F the loss of the received model
    on the device's training data. All devices count alike: q = 0 is their plain mean.
    """
    smooth = 1 / local_rate

    def factors(stats: Sequence[UpdateStats]) -> list[float]:
        losses = [item.loss_before for item in stats]
        if any(loss is None or not 0 < loss < math.inf for loss in losses):
            raise FoldError("q-FedAvg needs each device's loss before training, above 0")
        known = [loss for loss in losses if loss is not None]
        steep = [
            q * loss ** (q - 1) * (smooth * item.norm) ** 2 + smooth * loss**q
            for loss, item in zip(known, stats, strict=True)
        ]
        total = math.fsum(steep)
        return [
            smooth * loss**q / total / item.share if item.share else 0.0
            for loss, item in zip(known, stats, strict=True)
        ]

    return Weighing("fair", factors, needs_norms=True)

"""Reweighting: strategies that weight updates by more than their numbers of examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class UpdateStats:
    """What is known of an update without its tensors.

    ``norm`` (Frobenius), ``share`` of the weight (sum 1), the optimizer ``steps`` of its device (0:
    not reported), and the loss of the received model on the device's training data (None: not
    reported).
    """

    norm: float
    share: float = 1.0
    steps: int = 0
    loss_before: float | None = None


LOSSES = (1e-9, 1e9)  # nats a token; a device that reports one outside has not measured it


def _no_fault(item: UpdateStats) -> str:
    del item
    return ""


@dataclass(frozen=True)
class Reweighting:
    """Factors on the updates beside their shares, computed from the stats of all.

    ``factors`` gets the updates whose share is above 0. ``fault`` says why an update cannot be
    reweighted, or ''. With ``needs_norms`` every update is read twice.
    """

    name: str
    factors: Callable[[Sequence[UpdateStats]], list[float]]
    fault: Callable[[UpdateStats], str] = _no_fault
    needs_norms: bool = False


def _normalised(stats: Sequence[UpdateStats]) -> list[float]:
    effective = math.fsum(item.share * item.steps for item in stats)
    return [effective / item.steps for item in stats]


def _without_steps(item: UpdateStats) -> str:
    if item.steps >= 1:
        return ""
    return "FedNova needs its number of local steps, and it has none; update the device's agent"


# FedNova (Wang et al. 2020, arXiv 2007.07481) for local SGD at a constant rate: each update counts
# per step, and the whole goes as far as the mean number of steps. Devices with another optimizer
# are treated alike, which is our choice.
NORMALISED = Reweighting("normalised", _normalised, _without_steps)


def fair(q: float, local_rate: float) -> Reweighting:
    """q-FedAvg (Li et al. 2019, arXiv 1905.10497, Algorithm 2), L = 1 / the devices' rate.

    ``step = sum F^q L d / sum (q F^(q-1) L^2 |d|^2 + L F^q)`` with F the loss of the received model
    on the device's training data. All devices count alike: q = 0 is their plain mean.
    Numerator and denominator are divided by L and by the largest F^q, so that nothing overflows.
    """

    def factors(stats: Sequence[UpdateStats]) -> list[float]:
        losses = [item.loss_before or 0.0 for item in stats]
        loss_weights = [(loss / max(losses)) ** q for loss in losses]
        denominators = [
            1 + q * item.norm * item.norm / local_rate / loss
            for loss, item in zip(losses, stats, strict=True)
        ]
        total = math.fsum(one * two for one, two in zip(loss_weights, denominators, strict=True))
        return [one / total / item.share for one, item in zip(loss_weights, stats, strict=True)]

    return Reweighting("fair", factors, _without_loss, needs_norms=True)


def _without_loss(item: UpdateStats) -> str:
    if item.loss_before is not None and LOSSES[0] <= item.loss_before <= LOSSES[1]:
        return ""
    return (
        f"q-FedAvg needs its loss before training, above 0, and it reports {item.loss_before}; "
        "update the device's agent, or look at its data"
    )

"""Reweighting: strategies that weight updates by more than their numbers of examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol


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


class Reweighting(Protocol):
    """Factors on the updates beside their shares, computed from the stats of all.

    With ``needs_norms`` every update is read twice.
    """

    needs_norms: ClassVar[bool]

    def factors(self, stats: Sequence[UpdateStats]) -> list[float]:
        """The factor of each update; all have a share above 0 and no fault."""

    def fault(self, item: UpdateStats) -> str:
        """Why an update cannot be reweighted, or ''."""


@dataclass(frozen=True)
class FedNova:
    """FedNova (Wang et al. 2020, arXiv 2007.07481) for local SGD at a constant rate.

    Each update counts per step, and the whole step has the mean number of local steps. Devices with
    another optimizer are treated alike, which is our choice.
    """

    needs_norms: ClassVar[bool] = False

    def factors(self, stats: Sequence[UpdateStats]) -> list[float]:
        effective = math.fsum(item.share * item.steps for item in stats)
        return [effective / item.steps for item in stats]

    def fault(self, item: UpdateStats) -> str:
        if item.steps >= 1:
            return ""
        return "FedNova needs its number of local steps, and it has none; update the device's agent"


@dataclass(frozen=True)
class QFedAvg:
    """q-FedAvg (Li et al. 2019, arXiv 1905.10497, Algorithm 2), L = 1 / the devices' rate.

    ``step = sum F^q L d / sum (q F^(q-1) L^2 |d|^2 + L F^q)`` with F the loss of the received model
    on the device's training data. All devices count alike: q = 0 is their plain mean.
    Numerator and denominator are divided by L and by the largest F^q, so that nothing overflows.
    """

    q: float
    local_rate: float
    needs_norms: ClassVar[bool] = True

    def factors(self, stats: Sequence[UpdateStats]) -> list[float]:
        losses = [item.loss_before or 0.0 for item in stats]
        loss_weights = [(loss / max(losses)) ** self.q for loss in losses]
        denominators = [
            1 + self.q * item.norm * item.norm / self.local_rate / loss
            for loss, item in zip(losses, stats, strict=True)
        ]
        total = math.fsum(one * two for one, two in zip(loss_weights, denominators, strict=True))
        return [one / total / item.share for one, item in zip(loss_weights, stats, strict=True)]

    def fault(self, item: UpdateStats) -> str:
        if item.loss_before is not None and LOSSES[0] <= item.loss_before <= LOSSES[1]:
            return ""
        return (
            f"q-FedAvg needs its loss before training, above 0, and it reports {item.loss_before}; "
            "update the device's agent, or look at its data"
        )

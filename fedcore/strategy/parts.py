"""What strategies are made of: filters before the fold, the fold, server stages after it.

All work on one tensor at a time, in fp32, so that a server never holds a whole update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Moments = Mapping[str, Tensor]


@dataclass(frozen=True)
class UpdateStats:
    """What filters may know of an update before they see its tensors: its norm (Frobenius)."""

    norm: float


TensorFilter = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Filter:
    """A change to each update by itself: its stats in, a function on its tensors out."""

    name: str
    prepare: Callable[[UpdateStats], TensorFilter]


def clip_norm(limit: float) -> Filter:
    """Scale an update down to the norm ``limit``; shorter ones pass untouched."""

    def prepare(stats: UpdateStats) -> TensorFilter:
        if stats.norm <= limit:
            return lambda tensor: tensor
        factor = limit / stats.norm
        return lambda tensor: tensor * factor

    return Filter("clip_norm", prepare)


@dataclass(frozen=True)
class Fold:
    """Many weighted tensors of one name to one. The weights of a call sum to 1."""

    name: str
    run: Callable[[Iterable[tuple[float, Tensor]]], Tensor]


def _weighted_mean(parts: Iterable[tuple[float, Tensor]]) -> Tensor:
    total: Tensor | None = None
    for weight, tensor in parts:
        part = tensor.float() * weight
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


WEIGHTED_MEAN = Fold("weighted_mean", _weighted_mean)


@dataclass(frozen=True)
class Stage:
    """A server optimizer: mean delta in, step to add to the global weights out.

    ``start`` gives each moment's value before the first round; ``run`` takes the delta and the
    moments and returns the step and the new moments. Nothing else survives between rounds.
    """

    name: str
    start: Mapping[str, float]
    run: Callable[[Tensor, Moments], tuple[Tensor, Moments]]


def server_sgd(rate: float) -> Stage:
    """The mean delta times the server's rate (rate 1: plain averaging)."""
    return Stage("sgd", {}, lambda delta, moments: (delta * rate, moments))


@dataclass(frozen=True)
class AdamRates:
    """FedAdam's settings: server rate, decay of both moments, adaptivity tau."""

    rate: float
    beta1: float
    beta2: float
    tau: float


def server_adam(rates: AdamRates) -> Stage:
    """FedAdam: Reddi et al. 2020 (arXiv 2003.00295), Algorithm 2.

    ``m = b1 m + (1 - b1) d;  v = b2 v + (1 - b2) d^2;  step = rate m / (sqrt(v) + tau)``, no bias
    correction. The paper asks for v_0 >= tau^2; we start at tau^2.
    """

    def run(delta: Tensor, moments: Moments) -> tuple[Tensor, Moments]:
        m = moments["m"] * rates.beta1 + delta * (1 - rates.beta1)
        v = moments["v"] * rates.beta2 + delta.square() * (1 - rates.beta2)
        step = rates.rate * m / (torch.sqrt(v) + rates.tau)
        return step, {"m": m, "v": v}

    return Stage("adam", {"m": 0.0, "v": rates.tau**2}, run)


@dataclass(frozen=True)
class Strategy:
    """A federated strategy as a value. ``objective`` is what its devices minimise (by name)."""

    name: str
    filters: tuple[Filter, ...]
    fold: Fold
    stages: tuple[Stage, ...]
    objective: str = "plain"

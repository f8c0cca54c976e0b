"""Server optimizers: from the mean delta of a round to the step on the global weights.

The mean delta takes the place of the negative gradient (Reddi et al. 2020, arXiv 2003.00295). All
optimizers work coordinate by coordinate on one block at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Moments = Mapping[str, Tensor]
Run = Callable[[Tensor, Moments, Tensor], tuple[Tensor, Moments]]


@dataclass(frozen=True)
class ServerOptimizer:
    """A server optimizer as a value.

    ``start`` gives each moment's value before the first round; ``run`` takes the delta, the moments
    and the global weights, and returns the step and the new moments. Nothing else survives between
    rounds.
    """

    name: str
    start: Mapping[str, float]
    run: Run


def server_sgd(rate: float) -> ServerOptimizer:
    """The mean delta times the server's rate (rate 1: plain averaging)."""

    def run(delta: Tensor, moments: Moments, weights: Tensor) -> tuple[Tensor, Moments]:
        del weights
        return delta if rate == 1 else delta * rate, moments

    return ServerOptimizer("sgd", {}, run)


def server_momentum(rate: float, momentum: float) -> ServerOptimizer:
    """FedAvgM (Hsu et al., arXiv 1909.06335): ``v = momentum v + d;  step = rate v``."""

    def run(delta: Tensor, moments: Moments, weights: Tensor) -> tuple[Tensor, Moments]:
        del weights
        v = moments["v"] * momentum + delta
        return rate * v, {"v": v}

    return ServerOptimizer("momentum", {"v": 0.0}, run)


CONTROLS = "controls"  # SCAFFOLD's optimizer, whose moment devices receive


def server_controls(rate: float, share: float, path: float) -> ServerOptimizer:
    """SCAFFOLD (Karimireddy et al. 2020, arXiv 1910.06378, Algorithm 1 with option II).

    ``share`` f is that of the devices that take part, ``path`` is K eta, steps times local rate.
    A device sets ``c_i+ = c_i - c + (x - y_i) / (K eta)``, so that ``c_i+ - c_i`` is
    ``-c - d_i / (K eta)`` with its delta ``d_i = y_i - x``. The paper's ``c+ = c + f mean(c_i+ -
    c_i)`` is therefore ``(1 - f) c - f d / (K eta)``: the mean delta d says it all and no control
    variate travels upwards. f has to be the share of those who reported (``table.of_round``): then
    c stays the mean of all c_i, and with another it would be off by the ratio of both, and every
    step with it. Our choice: the mean is weighted by examples, here as for the model.
    """

    def run(delta: Tensor, moments: Moments, weights: Tensor) -> tuple[Tensor, Moments]:
        del weights
        step = delta if rate == 1 else delta * rate
        return step, {"c": moments["c"] * (1 - share) - delta * (share / path)}

    return ServerOptimizer(CONTROLS, {"c": 0.0}, run)


@dataclass(frozen=True)
class AdaptiveRates:
    """Settings of the adaptive optimizers: server rate, decay of both moments, adaptivity tau.

    ``weight_decay`` is FedAdamW's, times the rate.
    """

    rate: float
    beta1: float
    beta2: float
    tau: float
    weight_decay: float = 0.0


Second = Callable[[Tensor, Tensor, AdaptiveRates], Tensor]


def _adam(v: Tensor, square: Tensor, rates: AdaptiveRates) -> Tensor:
    return v * rates.beta2 + square * (1 - rates.beta2)


def _yogi(v: Tensor, square: Tensor, rates: AdaptiveRates) -> Tensor:
    return v - (1 - rates.beta2) * square * torch.sign(v - square)


def _adagrad(v: Tensor, square: Tensor, rates: AdaptiveRates) -> Tensor:
    del rates
    return v + square


def _adaptive(name: str, rates: AdaptiveRates, second: Second) -> ServerOptimizer:
    """Algorithm 2 of Reddi et al.: they differ in the second moment alone.

    ``m = b1 m + (1 - b1) d;  v = second(v, d^2);  step = rate m / (sqrt(v) + tau)``, without bias
    correction. The paper asks for v_0 >= tau^2; we start at tau^2.
    """

    def run(delta: Tensor, moments: Moments, weights: Tensor) -> tuple[Tensor, Moments]:
        m = moments["m"] * rates.beta1 + delta * (1 - rates.beta1)
        v = second(moments["v"], delta.square(), rates)
        step = rates.rate * m / (torch.sqrt(v) + rates.tau)
        if rates.weight_decay:
            step = step - rates.rate * rates.weight_decay * weights
        return step, {"m": m, "v": v}

    return ServerOptimizer(name, {"m": 0.0, "v": rates.tau**2}, run)


def server_adam(rates: AdaptiveRates) -> ServerOptimizer:
    """FedAdam; FedAdamW with a weight decay that does not pass through the moments.

    The decay is that of Loshchilov and Hutter (arXiv 1711.05101), as in the project's paper.
    """
    return _adaptive("adamw" if rates.weight_decay else "adam", rates, _adam)


def server_yogi(rates: AdaptiveRates) -> ServerOptimizer:
    """FedYogi: the second moment moves by at most (1 - b2) d^2, towards it."""
    return _adaptive("yogi", rates, _yogi)


def server_adagrad(rates: AdaptiveRates) -> ServerOptimizer:
    """FedAdagrad: the second moment only grows."""
    return _adaptive("adagrad", rates, _adagrad)

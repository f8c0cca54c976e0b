"""Every strategy by name: the one place where a specification becomes a strategy."""

from __future__ import annotations

from collections.abc import Callable

from fedcore.spec import JobSpec, StrategySpec
from fedcore.strategy.parts import (
    AdamRates,
    Filter,
    Strategy,
    clip_norm,
    server_adam,
    server_sgd,
    weighted_mean,
)


def _filters(options: StrategySpec) -> tuple[Filter, ...]:
    return (clip_norm(options.clip_update_norm),) if options.clip_update_norm else ()


def _fedavg(options: StrategySpec) -> Strategy:
    """McMahan et al. 2017 (arXiv 1602.05629), with a server rate."""
    stage = server_sgd(options.server_learning_rate)
    return Strategy("fedavg", _filters(options), weighted_mean, (stage,))


def _fedprox(options: StrategySpec) -> Strategy:
    """FedAvg whose devices are held near the global weights (arXiv 1812.06127)."""
    stage = server_sgd(options.server_learning_rate)
    return Strategy("fedprox", _filters(options), weighted_mean, (stage,), "proximal")


def _fedadam(options: StrategySpec) -> Strategy:
    rates = AdamRates(options.server_learning_rate, options.beta1, options.beta2, options.tau)
    return Strategy("fedadam", _filters(options), weighted_mean, (server_adam(rates),))


STRATEGIES: dict[str, Callable[[StrategySpec], Strategy]] = {
    "fedavg": _fedavg,
    "fedprox": _fedprox,
    "fedadam": _fedadam,
}


def build(spec: JobSpec) -> Strategy:
    """The strategy a job asks for."""
    return STRATEGIES[spec.strategy.name](spec.strategy)

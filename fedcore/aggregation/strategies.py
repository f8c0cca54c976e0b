"""Strategies: filters and reweighting before the fold, the fold, server optimizers after it.

``build`` is the one place where a specification becomes a strategy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fedcore.aggregation.folds import MEDIAN, WEIGHTED_MEAN, Fold, trimmed_mean
from fedcore.aggregation.server_optimizers import (
    AdaptiveRates,
    ServerOptimizer,
    server_adagrad,
    server_adam,
    server_controls,
    server_momentum,
    server_sgd,
    server_yogi,
)
from fedcore.aggregation.weighting import FedNova, QFedAvg, Reweighting, UpdateStats
from fedcore.spec.job import JobSpec
from fedcore.spec.options.strategy import StrategySpec


@dataclass(frozen=True)
class Filter:
    """A change to each update by itself: from its stats, the number it is multiplied with.

    With a filter every update is read twice, as its norm must be known before it is folded.
    """

    name: str
    factor: Callable[[UpdateStats], float]


def clip_norm(limit: float) -> Filter:
    """Scale an update down to the norm ``limit``; shorter ones pass untouched."""
    return Filter("clip_norm", lambda stats: min(1.0, limit / stats.norm) if stats.norm else 1.0)


@dataclass(frozen=True)
class Strategy:
    """A federated strategy as a value. ``objective`` is what its devices minimise (by name)."""

    name: str
    filters: tuple[Filter, ...]
    fold: Fold
    optimizers: tuple[ServerOptimizer, ...]
    objective: str = "plain"
    reweighting: Reweighting | None = None

    @property
    def needs_norms(self) -> bool:
        """Whether every update is read once before it is folded."""
        return bool(self.filters) or (self.reweighting is not None and self.reweighting.needs_norms)


# All folds work coordinate by coordinate: adapters are folded as under fedit, A and B each apart.
FOLDS: dict[str, Callable[[StrategySpec], Fold]] = {
    "mean": lambda _options: WEIGHTED_MEAN,
    "median": lambda _options: MEDIAN,
    "trimmed_mean": lambda options: trimmed_mean(options.trim),
}


def _sgd(spec: JobSpec) -> ServerOptimizer:
    return server_sgd(spec.strategy.server_learning_rate)


def _momentum(spec: JobSpec) -> ServerOptimizer:
    return server_momentum(spec.strategy.server_learning_rate, spec.strategy.beta1)


def _rates(spec: JobSpec) -> AdaptiveRates:
    options = spec.strategy
    return AdaptiveRates(options.server_learning_rate, options.beta1, options.beta2, options.tau)


def _adamw(spec: JobSpec) -> ServerOptimizer:
    return server_adam(replace(_rates(spec), weight_decay=spec.strategy.server_weight_decay))


def _controls(spec: JobSpec) -> ServerOptimizer:
    path = spec.train.local_steps * spec.train.learning_rate
    return server_controls(spec.strategy.server_learning_rate, spec.participation.fraction, path)


def _qfedavg(spec: JobSpec) -> Reweighting:
    return QFedAvg(spec.strategy.fairness_q, spec.train.learning_rate)


def with_actual_participation(spec: JobSpec, took_part: int, devices: int) -> JobSpec:
    """The job with the share of its devices whose updates one round folds.

    SCAFFOLD's server needs that share. It differs from the configured one by rounding up, by
    ``participation.minimum`` and by devices that are away. Other strategies do not depend on it.
    """
    if not spec.strategy.family.serves_state:
        return spec
    return replace(spec, participation=replace(spec.participation, fraction=took_part / devices))


@dataclass(frozen=True)
class StrategyTemplate:
    """A strategy without its numbers: server optimizer, client objective, reweighting."""

    optimizer: Callable[[JobSpec], ServerOptimizer]
    objective: str = "plain"
    reweighting: Callable[[JobSpec], Reweighting | None] = lambda _spec: None


STRATEGIES: dict[str, StrategyTemplate] = {
    "fedavg": StrategyTemplate(_sgd),  # McMahan et al. 2017, arXiv 1602.05629, with a server rate
    "fedavgm": StrategyTemplate(_momentum),
    "fedprox": StrategyTemplate(_sgd, "proximal"),  # Li et al. 2018, arXiv 1812.06127
    "fedadam": StrategyTemplate(lambda spec: server_adam(_rates(spec))),
    "fedadamw": StrategyTemplate(_adamw),
    "fedyogi": StrategyTemplate(lambda spec: server_yogi(_rates(spec))),
    "fedadagrad": StrategyTemplate(lambda spec: server_adagrad(_rates(spec))),
    "scaffold": StrategyTemplate(_controls, "controlled"),
    "fednova": StrategyTemplate(_sgd, reweighting=lambda _spec: FedNova()),
    "qfedavg": StrategyTemplate(_sgd, reweighting=_qfedavg),
}


def build(spec: JobSpec) -> Strategy:
    """The strategy a job asks for."""
    options = spec.strategy
    template = STRATEGIES[options.name]
    return Strategy(
        options.name,
        (clip_norm(options.clip_update_norm),) if options.clip_update_norm else (),
        FOLDS[options.fold](options),
        (template.optimizer(spec),),
        template.objective,
        template.reweighting(spec),
    )

"""Every strategy by name: the one place where a specification becomes a strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fedcore.aggregation.folds import (
    MEDIAN,
    WEIGHTED_MEAN,
    Filter,
    Fold,
    Strategy,
    clip_norm,
    trimmed_mean,
)
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
from fedcore.aggregation.weighting import NORMALISED, Reweighting, fair
from fedcore.spec.job import JobSpec
from fedcore.spec.options.strategy import StrategySpec

# All folds work coordinate by coordinate: adapters are folded as under fedit, A and B each apart.
FOLDS: dict[str, Callable[[StrategySpec], Fold]] = {
    "mean": lambda _options: WEIGHTED_MEAN,
    "median": lambda _options: MEDIAN,
    "trimmed_mean": lambda options: trimmed_mean(options.trim),
}


def _filters(options: StrategySpec) -> tuple[Filter, ...]:
    return (clip_norm(options.clip_update_norm),) if options.clip_update_norm else ()


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


def _fair(spec: JobSpec) -> Reweighting:
    return fair(spec.strategy.fairness_q, spec.train.learning_rate)


def with_actual_participation(spec: JobSpec, took_part: int, devices: int) -> JobSpec:
    """The job as one round of it was: so many of all its devices sent what is folded.

    SCAFFOLD's server needs that share, and rounding up, ``participation.minimum`` and devices that
    are away all make it another than the one asked for. Other strategies fold alike whoever is
    there.
    """
    if not spec.strategy.serves_state:
        return spec
    return replace(spec, participation=replace(spec.participation, fraction=took_part / devices))


@dataclass(frozen=True)
class StrategyTemplate:
    """A strategy but for its numbers: the server's optimizer, what devices minimise, the shares."""

    stage: Callable[[JobSpec], ServerOptimizer]
    objective: str = "plain"
    weighing: Callable[[JobSpec], Reweighting | None] = lambda _spec: None


STRATEGIES: dict[str, StrategyTemplate] = {
    "fedavg": StrategyTemplate(_sgd),  # McMahan et al. 2017, arXiv 1602.05629, with a server rate
    "fedavgm": StrategyTemplate(_momentum),
    "fedprox": StrategyTemplate(_sgd, "proximal"),  # Li et al. 2018, arXiv 1812.06127
    "fedadam": StrategyTemplate(lambda spec: server_adam(_rates(spec))),
    "fedadamw": StrategyTemplate(_adamw),
    "fedyogi": StrategyTemplate(lambda spec: server_yogi(_rates(spec))),
    "fedadagrad": StrategyTemplate(lambda spec: server_adagrad(_rates(spec))),
    "scaffold": StrategyTemplate(_controls, "controlled"),
    "fednova": StrategyTemplate(_sgd, weighing=lambda _spec: NORMALISED),
    "qfedavg": StrategyTemplate(_sgd, weighing=_fair),
}


def build(spec: JobSpec) -> Strategy:
    """The strategy a job asks for."""
    name, options = spec.strategy.name, spec.strategy
    recipe = STRATEGIES[name]
    stages = (recipe.stage(spec),)
    fold = FOLDS[options.fold](options)
    weighing = recipe.weighing(spec)
    return Strategy(name, _filters(options), fold, stages, recipe.objective, weighing)

"""Every strategy by name: the one place where a specification becomes a strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedcore.spec import JobSpec
from fedcore.spec_strategy import StrategySpec
from fedcore.strategy.parts import (
    MEDIAN,
    WEIGHTED_MEAN,
    AdamRates,
    Filter,
    Fold,
    Stage,
    Strategy,
    clip_norm,
    server_adam,
    server_sgd,
    trimmed_mean,
)

# All folds work coordinate by coordinate: adapters are folded as under fedit, A and B each apart.
FOLDS: dict[str, Callable[[StrategySpec], Fold]] = {
    "mean": lambda _options: WEIGHTED_MEAN,
    "median": lambda _options: MEDIAN,
    "trimmed_mean": lambda options: trimmed_mean(options.trim),
}


def _filters(options: StrategySpec) -> tuple[Filter, ...]:
    return (clip_norm(options.clip_update_norm),) if options.clip_update_norm else ()


def _sgd(options: StrategySpec) -> Stage:
    return server_sgd(options.server_learning_rate)


def _adam(options: StrategySpec) -> Stage:
    rate = options.server_learning_rate
    return server_adam(AdamRates(rate, options.beta1, options.beta2, options.tau))


@dataclass(frozen=True)
class Recipe:
    """A strategy but for its numbers: the server's optimizer and the devices' objective."""

    stage: Callable[[StrategySpec], Stage]
    objective: str = "plain"


STRATEGIES: dict[str, Recipe] = {
    "fedavg": Recipe(_sgd),  # McMahan et al. 2017, arXiv 1602.05629, with a server rate
    "fedprox": Recipe(_sgd, "proximal"),  # Li et al. 2018, arXiv 1812.06127
    "fedadam": Recipe(_adam),  # Reddi et al. 2020, arXiv 2003.00295
}


def build(spec: JobSpec) -> Strategy:
    """The strategy a job asks for."""
    name, options = spec.strategy.name, spec.strategy
    recipe = STRATEGIES[name]
    stages = (recipe.stage(options),)
    fold = FOLDS[options.fold](options)
    return Strategy(name, _filters(options), fold, stages, recipe.objective)

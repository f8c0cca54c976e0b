"""The options that say how a round's updates become the next model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedcore.errors import Fault
from fedcore.spec_adapter import REDISTRIBUTING
from fedcore.spec_checks import one_of, option, real

if TYPE_CHECKING:
    from fedcore.spec import JobSpec

ADAPTIVE = ("fedadam", "fedadamw", "fedyogi", "fedadagrad")
REMEMBERING = ("fedavgm", *ADAPTIVE)  # keep a moment for every coordinate of the model
WEIGHING = ("fednova", "qfedavg")  # give updates other shares than their numbers of examples
STRATEGIES = ("fedavg", "fedavgm", "fedprox", *ADAPTIVE, *WEIGHING, "scaffold")
FOLDS = ("mean", "median", "trimmed_mean")


@dataclass(frozen=True)
class StrategySpec:
    name: str = option("fedavg", one_of(*STRATEGIES), "Strategy")
    fold: str = option(
        "mean",
        one_of(*FOLDS),
        "Fold",
        "median and trimmed mean withstand broken devices, and ignore example counts",
        True,
    )
    trim: float = option(
        0.1, real(0, 0.49), "Trim", "share of lowest and of highest values left out", True
    )
    server_learning_rate: float = option(
        1.0, real(0, 100, above=True), "Server rate", "adaptive ones: start at 0.01", True
    )
    beta1: float = option(
        0.9, real(0, 0.9999), "Server beta 1", "adaptive ones; FedAvgM's momentum", True
    )
    beta2: float = option(
        0.99, real(0, 0.99999), "Server beta 2", "FedAdam, FedAdamW, FedYogi", True
    )
    tau: float = option(1e-3, real(0, 1, above=True), "Adaptivity tau", "adaptive ones", True)
    server_weight_decay: float = option(
        0.01, real(0, 1), "Server weight decay", "FedAdamW, times the server rate", True
    )
    proximal_mu: float = option(0.01, real(0, 1e4), "Proximal mu", "FedProx", True)
    fairness_q: float = option(
        1.0, real(0, 100), "Fairness q", "q-FedAvg; 0: FedAvg with all devices alike", True
    )
    clip_update_norm: float = option(0.0, real(0, 1e9), "Clip each update's norm", "0: none", True)

    @property
    def serves_state(self) -> bool:
        """Whether devices receive the server's state beside the model."""
        return self.name == "scaffold"

    @property
    def measures_loss(self) -> bool:
        """Whether devices tell the loss of the model they received."""
        return self.name == "qfedavg"


def _coordinates_must_stay(spec: JobSpec) -> list[Fault]:
    rule, name = spec.adapter.aggregation, spec.strategy.name
    if spec.adapter.kind != "lora" or rule not in REDISTRIBUTING:
        return []
    if name in REMEMBERING or name == "scaffold":
        message = (
            f"{name} remembers a number for every coordinate, and {rule} gives the factors new "
            "coordinates each round; take fedavg or fedprox, or average by fedit, ffa or fedex"
        )
        return [Fault("strategy.name", message)]
    return []


def _shares_need_a_mean(spec: JobSpec) -> list[Fault]:
    name, fold = spec.strategy.name, spec.strategy.fold
    if name in (*WEIGHING, "scaffold") and fold != "mean":
        message = f"{fold} ignores the shares that {name} gives the updates; take mean"
        return [Fault("strategy.fold", message)]
    return []


def _scaffold_needs_sgd(spec: JobSpec) -> list[Fault]:
    if spec.strategy.name != "scaffold":
        return []
    train, faults = spec.train, []
    if train.optimizer != "sgd":
        message = (
            "must be sgd with scaffold: its control variates are gradients, found from how far "
            "the weights moved"
        )
        faults.append(Fault("train.optimizer", message))
    if not train.local_steps:
        message = "must be above 0 with scaffold: all devices take equally many steps"
        faults.append(Fault("train.local_steps", message))
    if train.schedule != "constant":
        message = "must be constant with scaffold, which divides by the sum of all rates"
        faults.append(Fault("train.schedule", message))
    if train.warmup_steps:
        message = "must be 0 with scaffold, which divides by the sum of all rates"
        faults.append(Fault("train.warmup_steps", message))
    return faults


def _controls_need_whole_updates(spec: JobSpec) -> list[Fault]:
    """The server finds its control variate from what it averages."""
    if spec.strategy.name != "scaffold":
        return []
    faults = []
    if spec.participation.buffered:
        message = "must be synchronous with scaffold: stale control variates correct nothing"
        faults.append(Fault("participation.mode", message))
    if spec.strategy.clip_update_norm:
        message = "must be 0 with scaffold: devices count on the whole of their updates"
        faults.append(Fault("strategy.clip_update_norm", message))
    return faults


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (
    _coordinates_must_stay,
    _shares_need_a_mean,
    _scaffold_needs_sgd,
    _controls_need_whole_updates,
)

"""The options that say how a round's updates become the next model."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.spec_checks import one_of, option, real

STRATEGIES = ("fedavg", "fedprox", "fedadam")
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
        1.0, real(0, 100, above=True), "Server rate", "FedAdam: start at 0.01", True
    )
    beta1: float = option(0.9, real(0, 0.9999), "Server beta 1", "FedAdam", True)
    beta2: float = option(0.99, real(0, 0.99999), "Server beta 2", "FedAdam", True)
    tau: float = option(1e-3, real(0, 1, above=True), "Adaptivity tau", "FedAdam", True)
    proximal_mu: float = option(0.01, real(0, 1e4), "Proximal mu", "FedProx", True)
    clip_update_norm: float = option(0.0, real(0, 1e9), "Clip each update's norm", "0: none", True)

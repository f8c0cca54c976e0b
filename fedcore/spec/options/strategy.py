"""The options that say how a round's updates become the next model."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.spec.checks import number, one_of, option

ADAPTIVE = ("fedadam", "fedadamw", "fedyogi", "fedadagrad")
STATEFUL = ("fedavgm", *ADAPTIVE)  # keep a moment for every coordinate of the model
REWEIGHTING = ("fednova", "qfedavg")  # give updates other shares than their numbers of examples
STRATEGIES = ("fedavg", "fedavgm", "fedprox", *ADAPTIVE, *REWEIGHTING, "scaffold")
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
        0.1, number(0, 0.49), "Trim", "share of lowest and of highest values left out", True
    )
    server_learning_rate: float = option(
        1.0, number(0, 100, above=True), "Server rate", "adaptive ones: start at 0.01", True
    )
    beta1: float = option(
        0.9, number(0, 0.9999), "Server beta 1", "adaptive ones; FedAvgM's momentum", True
    )
    beta2: float = option(
        0.99, number(0, 0.99999), "Server beta 2", "FedAdam, FedAdamW, FedYogi", True
    )
    tau: float = option(1e-3, number(0, 1, above=True), "Adaptivity tau", "adaptive ones", True)
    server_weight_decay: float = option(
        0.01, number(0, 1), "Server weight decay", "FedAdamW, times the server rate", True
    )
    proximal_mu: float = option(0.01, number(0, 1e4), "Proximal mu", "FedProx", True)
    fairness_q: float = option(
        1.0, number(0, 100), "Fairness q", "q-FedAvg; 0: FedAvg with all devices alike", True
    )
    clip_update_norm: float = option(
        0.0, number(0, 1e9), "Clip each update's norm", "0: none", True
    )

    @property
    def serves_state(self) -> bool:
        """Whether devices receive the server's state beside the model."""
        return self.name == "scaffold"

    @property
    def measures_loss(self) -> bool:
        """Whether devices tell the loss of the model they received."""
        return self.name == "qfedavg"

"""How a round's updates become the next model: the group ``strategy`` of a specification.

``STRATEGIES`` says of each strategy what a specification, a form and the planner need to know; its
arithmetic is in ``fedcore.aggregation.strategies``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedcore.families import MemberName
from fedcore.spec.checks import number, one_of, option


class StrategyKind(MemberName):
    FEDAVG = "fedavg"
    FEDAVGM = "fedavgm"
    FEDPROX = "fedprox"
    FEDADAM = "fedadam"
    FEDADAMW = "fedadamw"
    FEDYOGI = "fedyogi"
    FEDADAGRAD = "fedadagrad"
    FEDNOVA = "fednova"
    QFEDAVG = "qfedavg"
    SCAFFOLD = "scaffold"


class FoldKind(MemberName):
    MEAN = "mean"
    MEDIAN = "median"
    TRIMMED_MEAN = "trimmed_mean"


@dataclass(frozen=True)
class StrategyFamily:
    """What is true of one strategy.

    ``options``: those of the group ``strategy`` that only some strategies read. ``usual``: the form
    shows it at once. ``keeps_moments``: the server keeps a moment for every coordinate.
    ``reweights``: updates get other shares than their numbers of examples. ``measures_loss``:
    devices report the loss of the model they received. ``serves_state``: devices receive the
    server's state beside the model. ``rate_moves_products``: the server's rate moves the product of
    averaged LoRA factors itself.
    """

    kind: StrategyKind
    label: str
    note: str
    options: tuple[str, ...] = ()
    usual: bool = False
    keeps_moments: bool = False
    reweights: bool = False
    measures_loss: bool = False
    serves_state: bool = False
    rate_moves_products: bool = False

    @property
    def remembers_coordinates(self) -> bool:
        """Whether a number of every coordinate is kept from round to round."""
        return self.keeps_moments or self.serves_state

    @property
    def needs_the_mean(self) -> bool:
        """Whether only a mean honours the shares that it gives the updates."""
        return self.reweights or self.serves_state


STRATEGIES: Mapping[StrategyKind, StrategyFamily] = {
    row.kind: row
    for row in (
        StrategyFamily(
            StrategyKind.FEDAVG,
            "FedAvg",
            "Averages updates, weighted by examples. Start here.",
            usual=True,
            rate_moves_products=True,
        ),
        StrategyFamily(
            StrategyKind.FEDAVGM,
            "FedAvgM",
            "FedAvg with server momentum; smooths noisy rounds.",
            options=("beta1",),
            keeps_moments=True,
        ),
        StrategyFamily(
            StrategyKind.FEDPROX,
            "FedProx",
            "Keeps devices near the global model; for very different data.",
            options=("proximal_mu",),
            usual=True,
            rate_moves_products=True,
        ),
        StrategyFamily(
            StrategyKind.FEDADAM,
            "FedAdam",
            "Adaptive server steps. Start with a server learning rate of 0.01.",
            options=(
                "beta1",
                "beta2",
                "tau",
            ),
            usual=True,
            keeps_moments=True,
        ),
        StrategyFamily(
            StrategyKind.FEDADAMW,
            "FedAdamW",
            "FedAdam with decoupled weight decay.",
            options=(
                "beta1",
                "beta2",
                "tau",
                "server_weight_decay",
            ),
            keeps_moments=True,
        ),
        StrategyFamily(
            StrategyKind.FEDYOGI,
            "FedYogi",
            "FedAdam with slower step-size growth; for sparse gradients.",
            options=(
                "beta1",
                "beta2",
                "tau",
            ),
            keeps_moments=True,
        ),
        StrategyFamily(
            StrategyKind.FEDADAGRAD,
            "FedAdagrad",
            "Adaptive steps that only shrink, for each weight.",
            options=(
                "beta1",
                "tau",
            ),
            keeps_moments=True,
        ),
        StrategyFamily(
            StrategyKind.FEDNOVA,
            "FedNova",
            "Normalises updates where devices take different numbers of steps.",
            reweights=True,
        ),
        StrategyFamily(
            StrategyKind.QFEDAVG,
            "q-FedAvg",
            "Gives more weight to devices that the model serves badly.",
            options=("fairness_q",),
            reweights=True,
            measures_loss=True,
        ),
        StrategyFamily(
            StrategyKind.SCAFFOLD,
            "SCAFFOLD",
            "Corrects client drift. Needs SGD and a fixed number of steps.",
            serves_state=True,
        ),
    )
}


@dataclass(frozen=True)
class StrategySpec:
    name: str = option(
        "fedavg", one_of(*map(str, StrategyKind)), "Strategy", "How updates become the next model."
    )
    fold: str = option(
        "mean",
        one_of(*map(str, FoldKind)),
        "Aggregation rule",
        "Median and trimmed mean resist faulty devices and ignore example counts.",
        True,
    )
    trim: float = option(
        0.1,
        number(0, 0.49),
        "Trim",
        "Fraction of the lowest and of the highest values that is dropped.",
        True,
    )
    server_learning_rate: float = option(
        1.0,
        number(0, 100, above=True),
        "Server learning rate",
        "Step size of the server; start at 0.01 with adaptive strategies.",
        True,
    )
    beta1: float = option(
        0.9,
        number(0, 0.9999),
        "Server beta 1",
        "First-moment decay of adaptive strategies; momentum of FedAvgM.",
        True,
    )
    beta2: float = option(
        0.99,
        number(0, 0.99999),
        "Server beta 2",
        "Second-moment decay of FedAdam, FedAdamW and FedYogi.",
        True,
    )
    tau: float = option(
        1e-3,
        number(0, 1, above=True),
        "Adaptivity tau",
        "Constant in the denominator of adaptive strategies.",
        True,
    )
    server_weight_decay: float = option(
        0.01,
        number(0, 1),
        "Server weight decay",
        "Weight decay of FedAdamW, times the server learning rate.",
        True,
    )
    proximal_mu: float = option(
        0.01,
        number(0, 1e4),
        "Proximal mu",
        "Strength of FedProx's penalty on the distance from the global model.",
        True,
    )
    fairness_q: float = option(
        1.0,
        number(0, 100),
        "Fairness q",
        "Exponent of q-FedAvg; 0: FedAvg with equal weights.",
        True,
    )
    clip_update_norm: float = option(
        0.0, number(0, 1e9), "Update norm clipping", "Maximum norm of an update; 0: no limit.", True
    )

    @property
    def family(self) -> StrategyFamily:
        """What is true of the strategy."""
        return STRATEGIES[StrategyKind(self.name)]

    @property
    def takes_the_mean(self) -> bool:
        """Whether updates are averaged by their shares."""
        return FoldKind(self.fold) is FoldKind.MEAN

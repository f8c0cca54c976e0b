"""Growth of the download under ``stack`` and ``fedex``, which merge products into the base.

Beside A and B the global model has two factors of rank R for each matrix whose base has changed.
Each round adds to R until R equals the smaller side of the matrix (see
``fedcore.aggregation.lowrank.rules``). So the bytes of every round are known in advance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedcore.architecture.matrices import matrices
from fedcore.architecture.sizes import FP32_BYTES, Architecture
from fedcore.rounds.sampling import devices_needed
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.spec.options.lowrank import LowRankRule
from fedcore.spec.options.ranks import rank_of


@dataclass(frozen=True)
class Growth:
    """Bytes downloaded beside A and B: the mean over the rounds, and in the last round."""

    mean: float = 0.0
    last: float = 0.0


def growth(spec: JobSpec, sizes: Architecture, devices: Sequence[AdapterSpec]) -> Growth:
    """The growth for devices with these adapters.

    If a round samples some of the devices, the mean that it adds is that share of the total. Under
    ``fedex`` the result is an upper bound: the residual of averaging may have a lower rank.
    """
    averaging = spec.adapter.averaging
    if not averaging.merges_into_base or not devices:
        return Growth()
    mean = last = 0.0
    for row in matrices(sizes):
        added = ADDED_RANK[averaging.rule](
            spec, [rank_of(adapter, row.name) for adapter in devices]
        )
        if added <= 0:
            continue
        bytes_of_rank = FP32_BYTES * row.per_rank
        most = min(row.inputs, row.outputs)
        # The mean of ``min(most, added * j)`` over j from 0 to one less than the rounds.
        growing = min(spec.rounds, int(most // added) + 1)
        total = added * growing * (growing - 1) / 2 + most * (spec.rounds - growing)
        mean += bytes_of_rank * (total / spec.rounds)
        last += bytes_of_rank * min(most, added * (spec.rounds - 1))
    return Growth(mean, last)


def _no_rank(spec: JobSpec, ranks: Sequence[int]) -> float:
    del spec, ranks
    return 0.0


def _stacked_ranks(spec: JobSpec, ranks: Sequence[int]) -> float:
    return sum(ranks) * devices_needed(len(ranks), spec.participation) / len(ranks)


def _residual_rank(spec: JobSpec, ranks: Sequence[int]) -> float:
    members = devices_needed(len(ranks), spec.participation)
    # The residual of averaging, ``sum p_i (B_i - B) (A_i - A)``, has the rank of all devices but
    # one. Clipping, reweighting and a server learning rate add another product.
    options = spec.strategy
    reweighted = options.clip_update_norm or options.family.reweights
    adds_a_product = options.server_learning_rate != 1 and options.family.rate_moves_products
    return ranks[0] * (members if reweighted or adds_a_product else members - 1)


# What a round adds to R of one matrix, by rule, from the ranks that devices train on it.
ADDED_RANK: Mapping[LowRankRule, Callable[[JobSpec, Sequence[int]], float]] = {
    LowRankRule.FEDIT: _no_rank,
    LowRankRule.FFA: _no_rank,
    LowRankRule.FEDEX: _residual_rank,
    LowRankRule.FLEXLORA: _no_rank,
    LowRankRule.STACK: _stacked_ranks,
}

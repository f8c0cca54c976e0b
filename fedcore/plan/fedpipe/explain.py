"""Text that explains a FedPipe allocation, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from fedcore.plan.cost.allocation import Allocation
from fedcore.plan.fedpipe.budget import Budget
from fedcore.spec.job import JobSpec


def why(spec: JobSpec, chosen: Allocation, full: Allocation, budget: Budget) -> str:
    """One line about ``chosen``; ``full``: every matrix at full rank with the job's options."""
    setting = chosen.setting
    if chosen.score >= 1.0:
        few = setting.at_once < setting.batch
        parts = f", computed {setting.at_once} at a time" if few else ""
        return f"no compromise: {_ranks(chosen)}{parts}"
    excess = [
        f"{_ranks(full)} would {text}"
        for text in (
            _excess("need", full.memory, budget.memory, megabytes),
            _excess("take", full.seconds, budget.seconds, _seconds),
        )
        if text
    ]
    compromises = [f"it adapts {_ranks(chosen)}"]
    if setting.base != spec.model.base:
        compromises.append(f"keeps its base in {setting.base}")
    if setting.batch < spec.train.batch_size:
        compromises.append(f"trains in batches of {setting.batch}")
    if setting.at_once < setting.batch:
        compromises.append(f"computes {setting.at_once} at a time")
    if not setting.encoder_trains:
        compromises.append("does not adapt the encoder")
    return "; ".join([*excess, ", ".join(compromises)])


def needs(chosen: Allocation) -> str:
    """What the allocation needs by the planner's estimate."""
    memory = f"at most {megabytes(chosen.memory)}"
    if chosen.seconds is None:
        return memory
    return f"{memory} and {_seconds(chosen.seconds)} of training a round"


def _excess(
    verb: str, need: float | None, limit: float | None, text: Callable[[float], str]
) -> str:
    if need is None or limit is None or need <= limit:
        return ""
    return f"{verb} {text(need)} of {text(limit)}"


def _ranks(chosen: Allocation) -> str:
    ranks = [rank for rank in chosen.ranks.values() if rank]
    low, high, count = min(ranks), max(ranks), len(chosen.ranks)
    of = f"all {count} matrices" if len(ranks) == count else f"{len(ranks)} of {count} matrices"
    return f"{of} at rank {low}" if low == high else f"{of} at ranks {low} to {high}"


def smallest(needs: Sequence[Budget], budget: Budget) -> Budget:
    """The smallest budget that would do, given the needs of the smallest allocations.

    More memory alone if that is enough, else more time alone, else more of both.
    """
    in_time = [need for need in needs if _within(need.seconds, budget.seconds)]
    if in_time:
        return Budget(min(_known(need.memory) for need in in_time), budget.seconds)
    in_memory = [need for need in needs if _within(need.memory, budget.memory)]
    if in_memory:
        return Budget(budget.memory, min(_known(need.seconds) for need in in_memory))
    return min(needs, key=lambda need: (_known(need.memory), _known(need.seconds)))


def refusal(needs: Sequence[Budget], budget: Budget) -> str:
    """Why there is no allocation, and which budget would do."""
    least, reasons = smallest(needs, budget), []
    if budget.memory is not None and _known(least.memory) > budget.memory:
        reasons.append(
            f"needs at least {megabytes(_known(least.memory))} of memory and may use "
            f"{megabytes(budget.memory)}"
        )
    if budget.seconds is not None and _known(least.seconds) > budget.seconds:
        reasons.append(
            f"needs at least {_seconds(_known(least.seconds))} of training a round and may take "
            f"{_seconds(budget.seconds)}"
        )
    return f"{' and '.join(reasons)}, whatever it adapts; raise its budget, or remove the device"


def _within(need: float | None, limit: float | None) -> bool:
    return need is None or limit is None or need <= limit


def _known(value: float | None) -> float:
    return 0.0 if value is None else value


def megabytes(value: float) -> str:
    """Bytes as megabytes, rounded up so that the figure is enough."""
    return f"{math.ceil(value / 1e5) / 10:g} MB"


def _seconds(value: float) -> str:
    digits = max(0, 3 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{math.ceil(value * 10**digits) / 10**digits:g} s"

"""A plan of FedPipe in words: what was given up and why, or what would have to be there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from fedcore.plan.fedpipe.types import Allocation, Budget
from fedcore.spec.job import JobSpec


def why(spec: JobSpec, chosen: Allocation, full: Allocation, budget: Budget) -> str:
    """In one line; ``full`` is every candidate at its highest rank with the job's own options."""
    if chosen.score >= 1.0:
        few = chosen.setting.at_once
        parts = f", computed {few} at a time" if few < chosen.setting.batch else ""
        return f"nothing is given up: {_ranks(chosen)}{parts}"
    over = [
        f"{_ranks(full)} would {text}"
        for text in (
            _over("need", full.memory, budget.memory, megabytes),
            _over("take", full.seconds, budget.seconds, _seconds),
        )
        if text
    ]
    return "; ".join([*over[:2], ", ".join(_given_up(spec, chosen))])


def needs(chosen: Allocation) -> str:
    """What the plan needs by the planner's estimate."""
    memory = f"at most {megabytes(chosen.memory)}"
    if chosen.seconds is None:
        return memory
    return f"{memory} and {_seconds(chosen.seconds)} of training a round"


def _over(verb: str, need: float | None, limit: float | None, text: Callable[[float], str]) -> str:
    if need is None or limit is None or need <= limit:
        return ""
    return f"{verb} {text(need)} of {text(limit)}"


def _given_up(spec: JobSpec, chosen: Allocation) -> list[str]:
    """What the plan does instead."""
    setting = chosen.setting
    told = [f"it adapts {_ranks(chosen)}"]
    if setting.base != spec.model.base:
        told.append(f"keeps its base in {setting.base}")
    if setting.batch < spec.train.batch_size:
        told.append(f"trains in batches of {setting.batch}")
    if setting.at_once < setting.batch:
        told.append(f"computes {setting.at_once} at a time")
    if not setting.whole:
        told.append("leaves the encoder alone")
    return told


def _ranks(chosen: Allocation) -> str:
    given = [rank for rank in chosen.ranks.values() if rank]
    low, high, count = min(given), max(given), len(chosen.ranks)
    of = f"all {count} matrices" if len(given) == count else f"{len(given)} of {count} matrices"
    return f"{of} at rank {low}" if low == high else f"{of} at ranks {low} to {high}"


def smallest(needs: Sequence[Budget], budget: Budget) -> Budget:
    """The budget that would do, of what the smallest plans need: no more of both than is needed.

    More memory alone where that is enough, else more time alone, else both.
    """
    in_time = [need for need in needs if _within(need.seconds, budget.seconds)]
    if in_time:
        return Budget(min(_known(need.memory) for need in in_time), budget.seconds)
    in_memory = [need for need in needs if _within(need.memory, budget.memory)]
    if in_memory:
        return Budget(budget.memory, min(_known(need.seconds) for need in in_memory))
    return min(needs, key=lambda need: (_known(need.memory), _known(need.seconds)))


def refusal(needs: Sequence[Budget], budget: Budget) -> str:
    """Why there is no plan, and what would have to be there."""
    least, told = smallest(needs, budget), []
    if budget.memory is not None and _known(least.memory) > budget.memory:
        told.append(
            f"needs at least {megabytes(_known(least.memory))} of memory and may use "
            f"{megabytes(budget.memory)}"
        )
    if budget.seconds is not None and _known(least.seconds) > budget.seconds:
        told.append(
            f"needs at least {_seconds(_known(least.seconds))} of training a round and may take "
            f"{_seconds(budget.seconds)}"
        )
    return f"{' and '.join(told)}, whatever it adapts; give it more, or leave it out of the job"


def _within(need: float | None, limit: float | None) -> bool:
    return need is None or limit is None or need <= limit


def _known(value: float | None) -> float:
    return 0.0 if value is None else value


def megabytes(value: float) -> str:
    """Rounded up, so that what is told as enough is enough."""
    return f"{math.ceil(value / 1e5) / 10:g} MB"


def _seconds(value: float) -> str:
    digits = max(0, 3 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{math.ceil(value * 10**digits) / 10**digits:g} s"

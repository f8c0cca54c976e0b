"""FedPipe's integer programme: one rank per matrix, of the highest total worth within budgets.

All numbers are integers, so solutions are checked exactly and a larger budget is never worth less.
Matrices of equal worth and costs are counted together: their order does not matter and would take
the solver most of its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedcore.errors import EdgewiseError

# A budget is counted in units of this share of the cost of all matrices at full rank.
LEVELS = 1_000_000
NODES = 100_000  # a count rather than a time limit, so that every machine finds the same solution
INFEASIBLE = 2  # scipy's ``status``


@dataclass(frozen=True)
class Item:
    """One matrix: ``worth`` and ``costs`` of each rank it may have; a cost per budget."""

    worth: tuple[int, ...]
    costs: tuple[tuple[int, ...], ...]


def solve(items: Sequence[Item], budgets: Sequence[int]) -> list[int] | None:
    """For each item the index of its rank, -1 for none; None if not even one rank fits.

    The solution has the highest worth of all with at least one rank and no cost above its budget,
    or is the best one found within NODES nodes. Equal inputs give equal solutions. Raises
    EdgewiseError if the solver stops without a solution.
    """
    if any(budget < 0 for budget in budgets):
        return None
    # Of ranks of equal worth the first, which costs less.
    most = [max(range(len(item.worth)), key=lambda i: (item.worth[i], -i)) for item in items]
    total = [
        sum(item.costs[place][i] for item, place in zip(items, most, strict=True))
        for i in range(len(budgets))
    ]
    if all(cost <= budget for cost, budget in zip(total, budgets, strict=True)):
        return most if items else None
    groups: dict[Item, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(item, []).append(place)
    counts = _counts(list(groups), [len(places) for places in groups.values()], budgets)
    if counts is None:
        return None
    # Each kind's highest ranks go to its last items. These are in later layers, whose training
    # needs no gradient of earlier ones.
    solution = [-1] * len(items)
    for unassigned, by_rank in zip(groups.values(), counts, strict=True):
        for rank in reversed(range(len(by_rank))):
            for _ in range(by_rank[rank]):
                solution[unassigned.pop()] = rank
    return solution


def _counts(
    kinds: Sequence[Item], sizes: Sequence[int], budgets: Sequence[int]
) -> list[list[int]] | None:
    """How many items of each kind get each rank, by HiGHS with a gap of zero."""
    # scipy is large and most processes never plan, so it is imported on first use.
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ImportError as error:
        text = "planning with FedPipe needs scipy; install requirements.txt"
        raise EdgewiseError(text) from error
    owner = np.array([kind for kind, item in enumerate(kinds) for _ in item.worth])
    worth = np.array([value for item in kinds for value in item.worth], dtype=float)
    cost = np.array([row for item in kinds for row in item.costs], dtype=float).T
    membership = (owner[None, :] == np.arange(len(kinds))[:, None]).astype(float)
    upper = np.array(sizes, dtype=float)
    result = milp(
        -worth,
        integrality=np.ones(len(worth)),
        bounds=Bounds(0, upper[owner]),
        constraints=[
            LinearConstraint(membership, 0, upper),
            LinearConstraint(cost, -np.inf, np.array(budgets, dtype=float)),
            LinearConstraint(np.ones((1, len(worth))), 1, np.inf),
        ],
        options={"mip_rel_gap": 0.0, "node_limit": NODES},
    )
    if result.status == INFEASIBLE:
        return None
    if result.x is None:
        raise EdgewiseError(
            f"FedPipe found no allocation: {result.message}; raise the memory or time budget"
        )
    ends = np.cumsum([len(item.worth) for item in kinds])[:-1]
    by_kind = np.split(np.rint(result.x).astype(int), ends)
    return [[int(count) for count in part] for part in by_kind]

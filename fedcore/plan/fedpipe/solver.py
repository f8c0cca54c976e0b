"""The integer programme of FedPipe: one rank for each matrix, within budgets, worth the most.

Everything in it is a whole number, so that a solution is checked exactly and a larger budget never
comes out worth less. Matrices that are alike in worth and costs are counted together: their order
says nothing, and would cost the solver most of its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import EdgewiseError

# A budget is counted in this share of what all matrices at their most would cost.
LEVELS = 1_000_000
NODES = 100_000  # a count, not a time: the same input has to end the same way everywhere
INFEASIBLE = 2  # scipy's word for it, in ``status``


@dataclass(frozen=True)
class Item:
    """One matrix: the worth of each rank it may have (0 left out), and what each rank costs.

    ``costs`` has for each rank one number for each budget.
    """

    worth: tuple[int, ...]
    costs: tuple[tuple[int, ...], ...]


def solve(items: Sequence[Item], budgets: Sequence[int]) -> list[int] | None:
    """For each item the place of its rank, -1 where it gets none; None where not one fits.

    Of all choices with at least one rank the one that is worth the most, with no cost above its
    budget; the best found where the search is cut off after NODES. The same input gives the same
    choice. Raises EdgewiseError where the solver gives up without any.
    """
    if any(budget < 0 for budget in budgets):
        return None
    most = [_dearest(item) for item in items]
    if all(_total(items, most, i) <= budget for i, budget in enumerate(budgets)):
        return most if items else None
    groups: dict[Item, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(item, []).append(place)
    counts = _counts(list(groups), [len(places) for places in groups.values()], budgets)
    return None if counts is None else _dealt(list(groups.values()), counts, len(items))


def _dearest(item: Item) -> int:
    """The place of the rank that is worth the most; of two alike the first, which costs less."""
    return max(range(len(item.worth)), key=lambda place: (item.worth[place], -place))


def _total(items: Sequence[Item], places: Sequence[int], budget: int) -> int:
    pairs = zip(items, places, strict=True)
    return sum(item.costs[place][budget] for item, place in pairs if place >= 0)


def _counts(
    kinds: Sequence[Item], sizes: Sequence[int], budgets: Sequence[int]
) -> list[list[int]] | None:
    """How many of each kind get each of its ranks; by HiGHS to a gap of zero."""
    bounds_of, linear, milp = _solver()
    owner = np.array([kind for kind, item in enumerate(kinds) for _ in item.worth])
    worth = np.array([value for item in kinds for value in item.worth], dtype=float)
    cost = np.array([row for item in kinds for row in item.costs], dtype=float).T
    membership = (owner[None, :] == np.arange(len(kinds))[:, None]).astype(float)
    upper = np.array(sizes, dtype=float)
    found = milp(
        -worth,
        integrality=np.ones(len(worth)),
        bounds=bounds_of(0, upper[owner]),
        constraints=[
            linear(membership, 0, upper),
            linear(cost, -np.inf, np.array(budgets, dtype=float)),
            linear(np.ones((1, len(worth))), 1, np.inf),
        ],
        options={"mip_rel_gap": 0.0, "node_limit": NODES},
    )
    if found.status == INFEASIBLE:
        return None
    if found.x is None:
        raise EdgewiseError(f"FedPipe's plan was not found: {found.message}; widen the budgets")
    return _by_kind(kinds, np.rint(found.x).astype(int))


def _solver() -> tuple[Any, Any, Any]:
    """scipy is large, and most processes never plan: it is loaded here, when it is needed."""
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ImportError as error:
        text = "planning by FedPipe needs scipy; install requirements.txt"
        raise EdgewiseError(text) from error
    return Bounds, LinearConstraint, milp


def _by_kind(kinds: Sequence[Item], flat: NDArray[np.int_]) -> list[list[int]]:
    ends = np.cumsum([len(item.worth) for item in kinds])[:-1]
    return [[int(count) for count in part] for part in np.split(flat, ends)]


def _dealt(
    groups: Sequence[Sequence[int]], counts: Sequence[Sequence[int]], size: int
) -> list[int]:
    """The counts given to the items of each kind, the last of them first.

    Later layers come later, and what they learn needs no gradient of the earlier ones.
    """
    chosen = [-1] * size
    for places, by_rank in zip(groups, counts, strict=True):
        left = list(places)
        for rank in reversed(range(len(by_rank))):
            for _ in range(by_rank[rank]):
                chosen[left.pop()] = rank
    return chosen

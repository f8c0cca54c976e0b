"""FedPipe (arXiv 2404.06448): ranks, batch and base precision of each device.

Each matrix has a score (``fedcore.methods.fedpipe.probe``). A device gets the ranks, micro-batch,
batch size and base precision that retain most of the score within its memory and time. These are
pure functions, used by launched jobs and simulations.

Our choices: rank ``r`` of a matrix is worth its score times ``log(1 + r)``, since a low rank
already captures most of an update (Hu et al. 2021, arXiv 2106.09685, section 7) and each doubling
adds about the same. A quantised base or a smaller batch lowers the worth of the whole allocation
(``fedcore.plan.fedpipe.setting_costs``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedcore.architecture.matrices import Matrix
from fedcore.architecture.sizes import Architecture
from fedcore.errors import Fault, SpecError
from fedcore.plan.cost.allocation import Allocation, Setting
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.fedpipe.budget import Budget
from fedcore.plan.fedpipe.explain import refusal, why
from fedcore.plan.fedpipe.scores import Scores, adaptable_matrices, mean_scores
from fedcore.plan.fedpipe.setting_costs import Costs, PerRank, costs, settings
from fedcore.plan.fedpipe.solver import LEVELS, Item, solve
from fedcore.spec.job import JobSpec
from fedcore.spec.options.ranks import rank_of

PER_MILLE = 1000
WORTH = 10_000  # of all matrices at full rank; a finer scale takes far longer to solve


def allocate_fleet(
    spec: JobSpec,
    sizes: Architecture,
    devices: Sequence[Candidate],
    scores: Mapping[str, Scores] | None = None,
) -> dict[str, Allocation]:
    """The allocation of each device by name. Raises SpecError that names every device without one.

    ``scores``: by device. A device without scores gets the mean of the others; without any scores,
    all matrices count equally.
    """
    allocations: dict[str, Allocation] = {}
    names: dict[str, list[str]] = {}  # by fault, to report the same fault of several devices once
    known = dict(scores or {})
    common = mean_scores(spec, sizes, list(known.values()))
    for device in devices:
        budget = Budget.of(spec, device)
        of_device = known.get(device.name, common)
        try:
            allocations[device.name] = allocate(spec, sizes, device, of_device, budget)
        except SpecError as error:
            for fault in error.faults:
                names.setdefault(fault.message, []).append(fault.path)
    if names:
        raise SpecError([Fault(", ".join(paths), message) for message, paths in names.items()])
    return allocations


def rank_choices(most: int) -> list[int]:
    """Powers of two below the highest rank, from 2 on, and that rank."""
    return [rank for rank in (2**i for i in range(1, 11)) if rank < most] + [most]


def allocate(
    spec: JobSpec, sizes: Architecture, device: Candidate, scores: Scores, budget: Budget
) -> Allocation:
    """The allocation of one device. Raises SpecError, with the smallest budget that would do, if
    nothing fits."""
    programme = _Programme.of(spec, sizes, device, scores)
    choices = settings(spec, programme.precision, budget.seconds is not None)
    best: Allocation | None = None
    for setting in choices:
        if best is not None and setting.quality <= PER_MILLE * best.score:
            break
        allocation = programme.best(setting, budget)
        if allocation is not None and (best is None or allocation.score > best.score):
            best = allocation
    if best is None:
        text = refusal(programme.smallest(choices), budget)
        raise SpecError([Fault(device.name or "method", text)])
    full = programme.full(choices[0])
    return replace(best, why=why(spec, best, full, budget))


@dataclass(frozen=True)
class _Programme:
    """One device's programme. ``worths``: (rank, worth) pairs of each adaptable matrix, without
    ranks that are worth nothing."""

    spec: JobSpec
    sizes: Architecture
    device: Candidate
    matrices: list[Matrix]
    worths: list[list[tuple[int, int]]]

    @classmethod
    def of(
        cls, spec: JobSpec, sizes: Architecture, device: Candidate, scores: Scores
    ) -> _Programme:
        matrices, full = adaptable_matrices(spec, sizes), math.log1p(spec.adapter.rank)
        positive = [max(0.0, scores.get(row.key, 0.0)) for row in matrices]
        total = sum(positive)
        if total > 0:
            shares = [value / total for value in positive]
        else:
            shares = [1 / len(matrices)] * len(matrices)
        worths = []
        for row, share in zip(matrices, shares, strict=True):
            ranks = rank_choices(rank_of(spec.adapter, row.name))
            pairs = [(rank, round(WORTH * share * math.log1p(rank) / full)) for rank in ranks]
            worths.append([pair for pair in pairs if pair[1] > 0])
        return cls(spec, sizes, device, matrices, worths)

    @property
    def total_worth(self) -> int:
        """The worth of all matrices at their highest ranks."""
        return sum(pairs[-1][1] for pairs in self.worths if pairs)

    @property
    def precision(self) -> str:
        return self.device.hardware.precision_of(self.spec.train.precision)

    def best(self, setting: Setting, budget: Budget) -> Allocation | None:
        """The allocation of the highest worth in a setting; None if nothing fits."""
        cost = self._costs(setting)
        if budget.memory is not None and cost.loading > budget.memory:
            return None
        places = [i for i in range(len(self.matrices)) if self._eligible(setting, i)]
        # For each limited budget: cost per rank of each matrix, the unit, and units available.
        limits = []
        for limit, fixed, per_rank in (
            (budget.memory, cost.memory, cost.memory_per_rank),
            (budget.seconds, cost.seconds, cost.seconds_per_rank),
        ):
            unit = _unit(per_rank, self.spec.adapter.rank)
            if limit is not None and fixed is not None and unit > 0:
                limits.append((per_rank, unit, math.floor((limit - fixed) / unit)))
        items = []
        for i in places:
            row, pairs = self.matrices[i], self.worths[i]
            units = [
                tuple(math.ceil(rank * per_rank[row] / unit) for per_rank, unit, _ in limits)
                for rank, _ in pairs
            ]
            items.append(Item(tuple(worth for _, worth in pairs), tuple(units)))
        solution = solve(items, [limit for _, _, limit in limits])
        if solution is None:
            return None
        ranks = {i: place for i, place in zip(places, solution, strict=True) if place >= 0}
        return self._allocation(setting, cost, ranks)

    def full(self, setting: Setting) -> Allocation:
        """Every matrix at its highest rank, whatever it costs."""
        places = {i: len(pairs) - 1 for i, pairs in enumerate(self.worths) if pairs}
        return self._allocation(setting, self._costs(setting), places)

    def smallest(self, choices: Sequence[Setting]) -> list[Budget]:
        """The budgets of the smallest allocations of all settings: one matrix at one rank.

        Costs are counted in whole units, so each budget includes two units of margin.
        """
        rank = self.spec.adapter.rank
        budgets: list[Budget] = []
        for setting in choices:
            cost, kinds = self._costs(setting), set()
            for i, row in enumerate(self.matrices):
                least = next((rank for rank, _ in self.worths[i]), 0)
                kind = cost.memory_per_rank.get(row), cost.seconds_per_rank.get(row), least
                if self._eligible(setting, i) and kind not in kinds:
                    kinds.add(kind)
                    one = self._allocation(setting, cost, {i: 0})
                    memory = one.memory + 2 * _unit(cost.memory_per_rank, rank)
                    seconds = one.seconds and one.seconds + 2 * _unit(cost.seconds_per_rank, rank)
                    budgets.append(Budget(memory, seconds))
        return budgets

    def _eligible(self, setting: Setting, place: int) -> bool:
        encodes = self.matrices[place].encodes
        return bool(self.worths[place]) and (setting.encoder_trains or not encodes)

    def _costs(self, setting: Setting) -> Costs:
        rows = [row for i, row in enumerate(self.matrices) if self._eligible(setting, i)]
        return costs(self.spec, setting, self.sizes, self.device, rows)

    def _allocation(self, setting: Setting, cost: Costs, places: Mapping[int, int]) -> Allocation:
        """The allocation of the ranks at these places of each matrix's ``worths``."""
        pairs = {i: self.worths[i][place] for i, place in places.items()}
        ranks = {row.name: pairs[i][0] if i in pairs else 0 for i, row in enumerate(self.matrices)}
        more_bytes = sum(
            pair[0] * cost.memory_per_rank[self.matrices[i]] for i, pair in pairs.items()
        )
        more_s = sum(pair[0] * cost.seconds_per_rank[self.matrices[i]] for i, pair in pairs.items())
        worth = sum(pair[1] for pair in pairs.values())
        return Allocation(
            ranks,
            setting,
            setting.quality * worth / (PER_MILLE * self.total_worth),
            max(cost.loading, cost.memory + more_bytes),
            None if cost.seconds is None else cost.seconds + more_s,
            "",
        )


def _unit(per_rank: PerRank, rank: int) -> float:
    """The unit in which a budget is counted: a share of the cost of all matrices at full rank."""
    return rank * sum(per_rank.values()) / LEVELS

"""FedPipe (arXiv 2404.06448): which matrices each device adapts, at which ranks, and how.

Each matrix has a score (``fedcore.methods.fedpipe.probe``). A device gets the ranks, the examples
at a time, the batch size and the precision of its frozen base that keep most of the score within
its memory and time. Pure functions of their arguments; launched jobs and simulations plan alike.

Our choices: rank ``r`` of a matrix is worth its score times ``log(1 + r)``, for a low rank already
holds most of an update (Hu et al. 2021, arXiv 2106.09685, section 7) and each doubling adds about
as much as the last; a rounded base or a smaller batch lessens the worth of the whole plan
(``fedpipe_settings``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedcore.architecture.matrices import Matrix, matrices
from fedcore.architecture.sizes import Architecture
from fedcore.errors import Fault, SpecError
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.fedpipe.explain import refusal, why
from fedcore.plan.fedpipe.setting_costs import Costs, Rising, costs, settings
from fedcore.plan.fedpipe.solver import LEVELS, Item, solve
from fedcore.plan.fedpipe.types import Allocation, Budget, Setting
from fedcore.spec.job import JobSpec
from fedcore.spec.options.ranks import rank_of

PER_MILLE = 1000
WORTH = 10_000  # what all matrices at their highest rank are worth; finer takes far longer
Scores = Mapping[str, float]  # by Matrix.key; only their proportions count


def candidates(spec: JobSpec, sizes: Architecture) -> list[Matrix]:
    """The matrices that may be adapted: those of the targets that the pattern does not leave out.

    Raises SpecError where the model has none.
    """
    found = [row for row in matrices(sizes) if rank_of(spec.adapter, row.name)]
    if not found:
        raise SpecError([Fault("adapter.pattern", "leaves no matrix to adapt; take entries out")])
    return found


def rank_choices(most: int) -> list[int]:
    """Powers of two below the highest rank, from 2 on, and that rank."""
    return [rank for rank in (2**i for i in range(1, 11)) if rank < most] + [most]


def choose(
    spec: JobSpec, sizes: Architecture, device: Candidate, scores: Scores, budget: Budget
) -> Allocation:
    """The plan of one device. Raises SpecError, with the smallest budget that would do, where
    nothing fits."""
    programme = _Programme.of(spec, sizes, device, scores)
    tried = settings(spec, programme.precision, budget.seconds is not None)
    best: Allocation | None = None
    for setting in tried:
        if best is not None and setting.quality <= PER_MILLE * best.score:
            break
        found = programme.best(setting, budget)
        if found is not None and (best is None or found.score > best.score):
            best = found
    if best is None:
        text = refusal(programme.least(tried), budget)
        raise SpecError([Fault(device.name or "method", text)])
    full = programme.full(tried[0])
    return replace(best, why=why(spec, best, full, budget))


@dataclass(frozen=True)
class _Programme:
    """One device's: (rank, worth) of each candidate, those left out that are worth nothing."""

    spec: JobSpec
    sizes: Architecture
    device: Candidate
    wanted: list[Matrix]
    worths: list[list[tuple[int, int]]]

    @classmethod
    def of(
        cls, spec: JobSpec, sizes: Architecture, device: Candidate, scores: Scores
    ) -> _Programme:
        wanted, full = candidates(spec, sizes), math.log1p(spec.adapter.rank)
        worths = []
        for row, share in zip(wanted, _shares(scores, wanted), strict=True):
            ranks = rank_choices(rank_of(spec.adapter, row.name))
            pairs = [(rank, round(WORTH * share * math.log1p(rank) / full)) for rank in ranks]
            worths.append([pair for pair in pairs if pair[1] > 0])
        return cls(spec, sizes, device, wanted, worths)

    @property
    def most(self) -> int:
        """What all candidates at their highest ranks are worth."""
        return sum(pairs[-1][1] for pairs in self.worths if pairs)

    @property
    def precision(self) -> str:
        return self.device.hardware.precision_of(self.spec.train.precision)

    def best(self, setting: Setting, budget: Budget) -> Allocation | None:
        """What is worth the most in that setting; None where nothing fits."""
        cost = self._costs(setting)
        if budget.memory is not None and cost.loading > budget.memory:
            return None
        able = [i for i, row in enumerate(self.wanted) if self._able(setting, row, i)]
        bounds = self._bounds(cost, budget)
        items = [self._item(i, [(rising, unit) for rising, unit, _ in bounds]) for i in able]
        found = solve(items, [room for _, _, room in bounds])
        if found is None:
            return None
        given = {i: place for i, place in zip(able, found, strict=True) if place >= 0}
        return self._choice(setting, cost, given)

    def full(self, setting: Setting) -> Allocation:
        """Every candidate at its highest rank, whatever it costs."""
        places = {i: len(pairs) - 1 for i, pairs in enumerate(self.worths) if pairs}
        return self._choice(setting, self._costs(setting), places)

    def least(self, tried: Sequence[Setting]) -> list[Budget]:
        """What the smallest plans of all settings need: one matrix at one rank each."""
        found: list[Budget] = []
        for setting in tried:
            cost, alike = self._costs(setting), set()
            for i, row in enumerate(self.wanted):
                least = next((rank for rank, _ in self.worths[i]), 0)
                kind = cost.memory_per_rank.get(row), cost.seconds_per_rank.get(row), least
                if self._able(setting, row, i) and kind not in alike:
                    alike.add(kind)
                    one = self._choice(setting, cost, {i: 0})
                    found.append(_rounded_up(cost, one, self.spec.adapter.rank))
        return found

    def _able(self, setting: Setting, row: Matrix, place: int) -> bool:
        return bool(self.worths[place]) and (setting.whole or not row.encodes)

    def _costs(self, setting: Setting) -> Costs:
        wanted = [row for i, row in enumerate(self.wanted) if self._able(setting, row, i)]
        return costs(self.spec, setting, self.sizes, self.device, wanted)

    def _bounds(self, cost: Costs, budget: Budget) -> list[tuple[Rising, float, int]]:
        """For each budget what a rank of each matrix costs, its unit, and how many there are."""
        pairs = [
            (budget.memory, cost.memory, cost.memory_per_rank),
            (budget.seconds, cost.seconds, cost.seconds_per_rank),
        ]
        found = []
        for limit, fixed, rising in pairs:
            unit = _unit(rising, self.spec.adapter.rank)
            if limit is not None and fixed is not None and unit > 0:
                found.append((rising, unit, math.floor((limit - fixed) / unit)))
        return found

    def _item(self, place: int, rising: Sequence[tuple[Rising, float]]) -> Item:
        row, pairs = self.wanted[place], self.worths[place]
        needed = [
            tuple(math.ceil(rank * per_rank[row] / unit) for per_rank, unit in rising)
            for rank, _ in pairs
        ]
        return Item(tuple(worth for _, worth in pairs), tuple(needed))

    def _choice(self, setting: Setting, cost: Costs, given: Mapping[int, int]) -> Allocation:
        pairs = {i: self.worths[i][place] for i, place in given.items()}
        ranks = {row.name: pairs[i][0] if i in pairs else 0 for i, row in enumerate(self.wanted)}
        more_bytes = sum(
            pair[0] * cost.memory_per_rank[self.wanted[i]] for i, pair in pairs.items()
        )
        slower = sum(pair[0] * cost.seconds_per_rank[self.wanted[i]] for i, pair in pairs.items())
        return Allocation(
            ranks,
            setting,
            setting.quality * sum(pair[1] for pair in pairs.values()) / (PER_MILLE * self.most),
            max(cost.loading, cost.memory + more_bytes),
            None if cost.seconds is None else cost.seconds + slower,
            "",
        )


def _shares(scores: Scores, wanted: Sequence[Matrix]) -> list[float]:
    """Each matrix's share of all scores; all alike where none is known."""
    found = [max(0.0, scores.get(row.key, 0.0)) for row in wanted]
    total = sum(found)
    return [value / total for value in found] if total > 0 else [1 / len(found)] * len(found)


def _unit(rising: Rising, rank: int) -> float:
    """What a budget is counted in: a share of what all matrices at the full rank add."""
    return rank * sum(rising.values()) / LEVELS


def _rounded_up(cost: Costs, one: Allocation, rank: int) -> Budget:
    """A budget that surely holds this plan, costs being counted in whole units."""
    memory = one.memory + 2 * _unit(cost.memory_per_rank, rank)
    seconds = one.seconds and one.seconds + 2 * _unit(cost.seconds_per_rank, rank)
    return Budget(memory, seconds)

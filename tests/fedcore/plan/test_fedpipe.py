"""FedPipe's allocation: within its budget by the planner's estimate, and of the highest worth."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.architecture.sizes import KNOWN, Architecture
from fedcore.errors import SpecError
from fedcore.hardware.links import LINKS
from fedcore.hardware.profile import Hardware
from fedcore.plan.cost.allocation import Allocation
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.round import plan_device
from fedcore.plan.fedpipe.allocate import allocate, rank_choices
from fedcore.plan.fedpipe.budget import Budget
from fedcore.plan.fedpipe.scores import adaptable_matrices
from fedcore.plan.fedpipe.solver import Item, solve
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import LORA_TARGETS
from fedcore.spec.overrides import tailored
from fedcore.spec.parse import parse_spec

SMALL = KNOWN["google/flan-t5-small"]
TINY = Architecture(32, 8, 3, 48, 2, 2, 64)
PI = Hardware({"fp32": 1e11}, 2e10, 16e9)


def spec(**groups: Any) -> JobSpec:
    adapter = {"rank": 8, "targets": LORA_TARGETS, "aggregation": "flexlora"}
    values: dict[str, Any] = {
        "model": {"name": "google/flan-t5-small"},
        "adapter": {**adapter, **groups.pop("adapter", {})},
        **groups,
    }
    return parse_spec(values)


def device(hardware: Hardware = PI, **changes: Any) -> Candidate:
    candidate = Candidate("pi", hardware, 100, 200.0, 40.0, (512.0, 64.0), LINKS["wifi"])
    return replace(candidate, **changes)


def some_scores(
    seed: int, sizes: Architecture = SMALL, job: JobSpec | None = None
) -> dict[str, float]:
    rng = random.Random(seed)
    return {row.key: rng.lognormvariate(0, 1) for row in adaptable_matrices(job or spec(), sizes)}


def predicted(
    job: JobSpec, sizes: Architecture, of: Candidate, allocation: Allocation
) -> tuple[float, float]:
    """Peak bytes and seconds of training by the planner, with the allocation's overrides."""
    plan = plan_device(tailored(job, allocation.overrides(job)), sizes, of)
    return plan.memory.peak, plan.seconds.get("train_s", 0.0)


def full(job: JobSpec, sizes: Architecture, of: Candidate) -> Allocation:
    return allocate(job, sizes, of, {}, Budget())


def test_no_compromise_without_a_budget() -> None:
    job = spec()
    allocation = full(job, SMALL, device())
    assert allocation.score == 1.0 and set(allocation.ranks.values()) == {8}
    assert allocation.why == "no compromise: all 144 matrices at rank 8"
    assert allocation.overrides(job) == {"adapter.pattern": [], "train.batch_size": 8}


def test_allocation_figures_match_the_planner() -> None:
    job, of = spec(), device()
    allocation = full(job, SMALL, of)
    memory, seconds = predicted(job, SMALL, of, allocation)
    assert allocation.memory == pytest.approx(memory, rel=1e-9)
    # The lowest layer's inputs need no gradient, which the sum over matrices does not see.
    assert allocation.seconds is not None
    assert seconds <= allocation.seconds <= 1.001 * seconds


SHARES = st.floats(0.3, 1.1)
JOBS = st.sampled_from(
    [
        {},
        {"train": {"local_steps": 6}},
        {"train": {"checkpointing": True}, "adapter": {"rank": 16}},
        {"adapter": {"targets": ["q", "v"]}, "train": {"kernels": "plain"}},
        {"model": {"name": "google/flan-t5-small", "base": "int8"}, "train": {"micro_batch": 2}},
    ]
)


@settings(max_examples=25, deadline=None)
@given(JOBS, st.integers(0, 9), SHARES, st.one_of(st.none(), SHARES), st.booleans())
def test_no_allocation_exceeds_its_budget(
    groups: dict[str, Any], seed: int, memory: float, time: float | None, known: bool
) -> None:
    job, of = spec(**groups), device(mfu=0.3 if known else None)
    most = full(job, TINY, of)
    assert most.seconds is not None
    budget = Budget(memory * most.memory, time and time * most.seconds)
    try:
        allocation = allocate(job, TINY, of, some_scores(seed, TINY, job), budget)
    except SpecError:
        return
    needed, seconds = predicted(job, TINY, of, allocation)
    assert needed <= allocation.memory * (1 + 1e-9) and allocation.memory <= memory * most.memory
    if budget.seconds is not None:
        assert allocation.seconds is not None
        assert seconds <= allocation.seconds * (1 + 1e-9) and allocation.seconds <= budget.seconds


@settings(max_examples=25, deadline=None)
@given(
    JOBS,
    st.integers(0, 9),
    SHARES,
    st.one_of(st.none(), SHARES),
    st.floats(1, 1.5),
    st.floats(1, 1.5),
)
def test_larger_budget_never_lowers_the_score(
    groups: dict[str, Any], seed: int, memory: float, time: float | None, more: float, longer: float
) -> None:
    job, of = spec(**groups), device()
    most, scores = full(job, TINY, of), some_scores(seed, TINY, job)
    assert most.seconds is not None
    seconds = time and time * most.seconds
    try:
        less = allocate(job, TINY, of, scores, Budget(memory * most.memory, seconds))
    except SpecError:
        return
    bigger = Budget(more * memory * most.memory, seconds and longer * seconds)
    assert allocate(job, TINY, of, scores, bigger).score >= less.score
    unbounded = Budget(more * memory * most.memory, None)
    assert allocate(job, TINY, of, scores, unbounded).score >= less.score


@pytest.mark.parametrize("memory", [True, False])
def test_impossible_budget_names_the_smallest_sufficient_one(memory: bool) -> None:
    job, of = spec(train={"local_steps": 4}), device()
    with pytest.raises(SpecError) as refused:
        allocate(job, SMALL, of, {}, Budget(1e6) if memory else Budget(None, 0.001))
    text = str(refused.value.faults[0])
    match = re.search(r"needs at least ([\d.]+) (MB|s)", text)
    assert match, text
    smallest = float(match[1]) * (1e6 if memory else 1)

    def bounded(value: float) -> Budget:
        return Budget(value) if memory else Budget(None, value)

    allocation = allocate(job, SMALL, of, {}, bounded(smallest))
    assert allocation.adapted >= 1
    with pytest.raises(SpecError):
        allocate(job, SMALL, of, {}, bounded(0.998 * smallest))


def test_both_insufficient_budgets_are_named() -> None:
    with pytest.raises(SpecError) as refused:
        allocate(spec(), SMALL, device(), {}, Budget(1e6, 0.001))
    text = str(refused.value.faults[0])
    match = re.search(r"at least ([\d.]+) MB .* at least ([\d.]+) s", text)
    assert match, text
    allocate(spec(), SMALL, device(), {}, Budget(float(match[1]) * 1e6, float(match[2])))


def test_allocation_is_deterministic() -> None:
    job, of, scores = spec(), device(), some_scores(3)
    most = full(job, SMALL, of)
    budget = Budget(0.8 * most.memory)
    again = [allocate(job, SMALL, of, dict(reversed(scores.items())), budget) for _ in range(2)]
    assert again[0] == again[1] == allocate(job, SMALL, of, scores, budget)


def test_higher_score_gets_no_lower_rank() -> None:
    job = spec(model={"name": "google/flan-t5-small", "base": "fp32"}, train={"micro_batch": 1})
    scores = some_scores(5)
    most = full(job, SMALL, device())
    bare = most.memory - 16 * 8 * sum(row.per_rank for row in adaptable_matrices(job, SMALL))
    allocation = allocate(job, SMALL, device(), scores, Budget(bare + 0.3 * (most.memory - bare)))
    assert len(set(allocation.ranks.values())) > 2
    for kind in ("q", "wo"):
        rows = [row for row in adaptable_matrices(job, SMALL) if row.kind == kind]
        ordered = sorted(rows, key=lambda row: scores[row.key])
        ranks = [allocation.ranks[row.name] for row in ordered]
        # Whole numbers leave some slack between neighbours; not between the ends.
        assert sum(ranks[-6:]) > sum(ranks[:6])


def test_micro_batch_shrinks_before_quality() -> None:
    """Fewer examples at a time cost nothing that is learnt; a rounded base costs a little."""
    job, of = spec(), device()
    most = full(job, SMALL, of)
    allocation = allocate(job, SMALL, of, {}, Budget(0.75 * most.memory))
    assert allocation.score == 1.0
    assert allocation.setting.at_once < 8 and allocation.setting.base == "auto"
    assert allocation.why.startswith("no compromise") and "at a time" in allocation.why
    with pytest.raises(SpecError) as refused:
        allocate(job, SMALL, of, {}, Budget(1e6))
    smallest = float(re.search(r"at least ([\d.]+) MB", str(refused.value))[1]) * 1e6  # type: ignore[index]
    tight = allocate(job, SMALL, of, {}, Budget(1.02 * smallest))
    assert tight.setting.base != "auto" and f"its base in {tight.setting.base}" in tight.why
    assert "would need" in tight.why


def test_tight_time_budget_excludes_the_encoder() -> None:
    job, of = spec(train={"local_steps": 4}), device()
    most = full(job, SMALL, of)
    assert most.seconds is not None
    with pytest.raises(SpecError) as refused:
        allocate(job, SMALL, of, {}, Budget(None, 1e-3))
    least = float(re.search(r"at least ([\d.]+) s", str(refused.value))[1])  # type: ignore[index]
    tight = allocate(job, SMALL, of, {}, Budget(None, 1.05 * least))
    assert tight.setting.batch < 8 and "batches of" in tight.why
    allocation = allocate(job, SMALL, of, {}, Budget(None, 0.5 * most.seconds))
    assert not allocation.setting.encoder_trains or allocation.setting.batch < 8
    if not allocation.setting.encoder_trains:
        assert not any(
            rank for name, rank in allocation.ranks.items() if name.startswith("encoder")
        )


def test_job_pattern_is_retained() -> None:
    left, capped = (
        "encoder.block.0.layer.0.SelfAttention.q",
        "decoder.block.0.layer.1.EncDecAttention.v",
    )
    job = spec(adapter={"pattern": [f"{left}=0", f"{capped}=2"]})
    allocation = full(job, SMALL, device())
    assert left not in allocation.ranks and allocation.ranks[capped] == 2
    assert set(allocation.overrides(job)["adapter.pattern"]) == {f"{left}=0", f"{capped}=2"}


def test_ranks_to_choose_from() -> None:
    assert rank_choices(16) == [2, 4, 8, 16]
    assert rank_choices(12) == [2, 4, 8, 12]
    assert rank_choices(1) == [1]


ITEMS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 50), min_size=1, max_size=3).map(sorted),
        st.integers(1, 40),
        st.integers(0, 40),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(ITEMS, st.integers(0, 120), st.integers(0, 120))
def test_solver_matches_exhaustive_search(
    rows: list[tuple[list[int], int, int]], first: int, second: int
) -> None:
    items = [
        Item(tuple(worth), tuple(((i + 1) * a, (i + 1) * b) for i in range(len(worth))))
        for worth, a, b in rows
    ]
    best = 0
    for places in _all([len(item.worth) for item in items]):
        costs = [
            sum(item.costs[p][k] for item, p in zip(items, places, strict=True) if p >= 0)
            for k in (0, 1)
        ]
        if any(p >= 0 for p in places) and costs[0] <= first and costs[1] <= second:
            worth = sum(item.worth[p] for item, p in zip(items, places, strict=True) if p >= 0)
            best = max(best, worth)
    solution = solve(items, [first, second])
    if best == 0:
        assert solution is None
        return
    assert solution is not None
    chosen = [(item, p) for item, p in zip(items, solution, strict=True) if p >= 0]
    assert sum(item.worth[p] for item, p in chosen) == best
    assert sum(item.costs[p][0] for item, p in chosen) <= first
    assert sum(item.costs[p][1] for item, p in chosen) <= second


def _all(counts: list[int]) -> list[list[int]]:
    rows: list[list[int]] = [[]]
    for count in counts:
        rows = [[*row, place] for row in rows for place in range(-1, count)]
    return rows

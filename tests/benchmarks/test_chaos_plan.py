"""What the chaos runner draws, and what it calls a difference."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from benchmarks.chaos.disturbed_jobs import JobOutcome, Kill
from benchmarks.chaos.outcomes import faults, table
from benchmarks.chaos.strikes import MOMENTS, STRIKES_A_VISIT, Schedule, draw
from fedcore.rounds.types import RoundPhase

TARGETS = ("web", "coordinator", "agent")
PAIRS = len(MOMENTS) * len(TARGETS)


def test_kills_are_deterministic_by_seed() -> None:
    assert draw(3, 40, TARGETS) == draw(3, 40, TARGETS)
    assert draw(3, 40, TARGETS) != draw(4, 40, TARGETS)


def test_kills_cover_states_and_pairs_first() -> None:
    strikes = draw(0, 2 * PAIRS, TARGETS)
    assert {strike.moment for strike in strikes[: len(MOMENTS)]} == set(MOMENTS)
    counts = Counter((strike.moment, strike.target) for strike in strikes[:PAIRS])
    assert set(counts.values()) == {1} and len(counts) == PAIRS
    assert len(strikes) == 2 * PAIRS


def test_schedule_limits_strikes_per_visit() -> None:
    schedule = Schedule(draw(0, 2 * PAIRS, TARGETS))
    took = [schedule.take("a visit", RoundPhase.COLLECTING) for _ in range(STRIKES_A_VISIT + 1)]
    assert [strike.moment for strike in took[:-1] if strike] == [RoundPhase.COLLECTING] * 2
    assert took[-1] is None
    assert schedule.take("another visit", RoundPhase.COLLECTING) is not None


def test_missed_strike_returns_after_half_the_wait() -> None:
    schedule = Schedule(draw(0, 1, TARGETS))
    (strike,) = schedule.strikes
    assert schedule.take("a visit", strike.moment) is strike
    assert schedule.take("another visit", strike.moment) is None
    schedule.put_back(strike)
    again = schedule.take("another visit", strike.moment)
    assert again == replace(strike, wait_s=strike.wait_s / 2)


def test_outcomes_report_every_difference() -> None:
    same = [(0, "aa"), (1, "bb")]
    reference = JobOutcome(1.0, same)
    assert faults(reference, [JobOutcome(2.0, same)]) == []
    (other,) = faults(reference, [JobOutcome(2.0, [(0, "aa"), (1, "cc")])])
    assert "round 1" in other and "cc" in other
    (fewer,) = faults(reference, [JobOutcome(2.0, same[:1])])
    assert "1 rounds closed, 2 undisturbed" in fewer
    (stuck,) = faults(reference, [JobOutcome(2.0, same, [], "the job is running")])
    assert stuck.endswith("the job is running")


def test_table_counts_kills_by_target_and_state() -> None:
    strikes = draw(0, PAIRS, TARGETS)
    kills = [Kill(strike, 1, 2.0) for strike in strikes]
    shown = table(TARGETS, JobOutcome(1.0, [(0, "aa")]), [JobOutcome(4.0, [(0, "aa")], kills)])
    assert f"pairs covered        {PAIRS} of {PAIRS}" in shown
    assert f"kills                {PAIRS}" in shown
    assert "equal bit for bit: 1" in shown
    assert "2.0 s / 2.0 s" in shown

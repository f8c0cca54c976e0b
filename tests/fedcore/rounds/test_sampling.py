"""Client sampling: the members of a round, its target and its quorum."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.rounds.sampling import devices_needed, quorum, select, tiers
from fedcore.spec.options.participation import ParticipationSpec

NAMES = [f"pi-{number:02}" for number in range(40)]
PARTICIPATION = st.builds(
    ParticipationSpec,
    fraction=st.floats(0.01, 1),
    minimum=st.integers(1, 50),
    over_selection=st.floats(0, 1),
    quorum=st.floats(0.01, 1),
)


@given(st.integers(1, 40), PARTICIPATION, st.integers(0, 9), st.integers(0, 9))
def test_selection_laws(
    count: int, participation: ParticipationSpec, seed: int, number: int
) -> None:
    candidates = NAMES[:count]
    chosen = select(candidates, participation, seed, number)
    assert chosen == select(candidates, participation, seed, number)
    assert list(chosen.members) == sorted(set(chosen.members)), "in the candidates' order, once"
    assert set(chosen.members) <= set(candidates)
    assert 1 <= chosen.target <= len(chosen.members) <= count
    assert chosen.target >= min(count, participation.minimum)
    assert chosen.target >= min(count, participation.fraction * count)
    assert 1 <= quorum(chosen.target, participation) <= chosen.target


@pytest.mark.parametrize(
    ("fraction", "minimum", "over", "candidates", "target", "members"),
    [
        (1.0, 1, 0.0, 3, 3, 3),
        (0.5, 1, 0.0, 3, 2, 2),  # a share is rounded up
        (0.1, 1, 0.0, 30, 3, 3),  # 0.1 * 30 is 3.0000000000000004
        (0.1, 5, 0.0, 30, 5, 5),
        (0.5, 1, 0.5, 10, 5, 8),  # half of 5 more, rounded up
        (0.5, 1, 0.2, 10, 5, 6),
        (1.0, 1, 0.5, 4, 4, 4),  # no other device is left
        (0.01, 9, 0.0, 3, 3, 3),
    ],
)
def test_selection_size(
    fraction: float, minimum: int, over: float, candidates: int, target: int, members: int
) -> None:
    participation = ParticipationSpec(fraction=fraction, minimum=minimum, over_selection=over)
    chosen = select(NAMES[:candidates], participation, 0, 1)
    assert (chosen.target, len(chosen.members)) == (target, members)
    assert devices_needed(candidates, participation) == target


@pytest.mark.parametrize(
    ("share", "target", "least"),
    [(0.5, 3, 2), (0.5, 2, 1), (1.0, 3, 3), (0.01, 3, 1), (0.7, 10, 7), (0.5, 1, 1)],
)
def test_quorum_rounds_a_share_up(share: float, target: int, least: int) -> None:
    assert quorum(target, ParticipationSpec(quorum=share)) == least


def test_sampling_is_uniform() -> None:
    """1000 rounds of 2 of 8: 250 each, within five standard deviations of 13.7."""
    participation = ParticipationSpec(fraction=0.25)
    counts = Counter(
        name
        for number in range(1000)
        for name in select(NAMES[:8], participation, 3, number).members
    )
    assert set(counts) == set(NAMES[:8])
    assert all(abs(count - 250) < 5 * 13.7 for count in counts.values())


def test_samples_differ_by_round_and_seed() -> None:
    participation = ParticipationSpec(fraction=0.5)
    samples = {
        select(NAMES, participation, seed, number) for seed in (1, 2) for number in (1, 2, 3)
    }
    assert len(samples) == 6
    assert select(NAMES, replace(participation, deadline_s=9), 1, 1) in samples


def test_selection_known_answer() -> None:
    chosen = select(["a", "b", "c", "d", "e"], ParticipationSpec(fraction=0.4), 7, 1)
    assert (chosen.members, chosen.target) == (("b", "e"), 2)


TIMES = {name: 1.0 + (number * 7) % 40 for number, name in enumerate(NAMES)}


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 50))
def test_tier_laws(size: int, count: int, least: int) -> None:
    times = {name: TIMES[name] for name in NAMES[:size]}
    groups = tiers(times, count, least)
    assert 1 <= len(groups) <= count
    assert sorted(name for group in groups for name in group) == NAMES[:size]
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert len(groups) == 1 or min(map(len, groups)) >= least
    for faster, slower in pairwise(groups):
        assert max(times[name] for name in faster) <= min(times[name] for name in slower)


def test_members_come_from_one_tier() -> None:
    part = ParticipationSpec(fraction=0.2, tiers=4)
    groups = [set(group) for group in tiers(TIMES, 4, 8)]
    samples = [set(select(NAMES, part, 1, number, TIMES).members) for number in range(200)]
    owners = [[index for index, group in enumerate(groups) if one <= group] for one in samples]
    assert all(len(owner) == 1 for owner in owners)
    counts = Counter(owner[0] for owner in owners)
    assert set(counts) == {0, 1, 2, 3}
    assert all(abs(count - 50) < 5 * 6.1 for count in counts.values()), counts
    assert all(len(one) == 8 for one in samples)


def test_devices_without_a_time_are_sampled_first() -> None:
    part = ParticipationSpec(fraction=0.25, tiers=2)
    known = {name: TIMES[name] for name in NAMES[:25]}
    assert set(select(NAMES, part, 1, 1, known).members) <= set(NAMES[25:])
    assert set(select(NAMES, part, 1, 1).members) <= set(NAMES)
    nearly = {name: TIMES[name] for name in NAMES[:38]}
    assert len(select(NAMES, part, 1, 1, nearly).members) == 10


def test_times_are_ignored_without_tiers() -> None:
    part = ParticipationSpec(fraction=0.25)
    assert select(NAMES, part, 3, 5, TIMES) == select(NAMES, part, 3, 5)


def test_over_selection_stays_within_a_tier() -> None:
    part = ParticipationSpec(fraction=0.25, tiers=4, over_selection=0.5)
    chosen = select(NAMES, part, 1, 1, TIMES)
    assert (chosen.target, len(chosen.members)) == (10, 10)

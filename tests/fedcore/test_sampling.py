"""Who takes part in a round, how many are waited for, and how few suffice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.sampling import needed, quorum, select
from fedcore.spec import ParticipationSpec

NAMES = [f"pi-{number:02}" for number in range(40)]
PARTICIPATION = st.builds(
    ParticipationSpec,
    fraction=st.floats(0.01, 1),
    minimum=st.integers(1, 50),
    over_selection=st.floats(0, 1),
    quorum=st.floats(0.01, 1),
)


@given(st.integers(1, 40), PARTICIPATION, st.integers(0, 9), st.integers(0, 9))
def test_laws_of_selection(
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
        (1.0, 1, 0.5, 4, 4, 4),  # nobody more to ask
        (0.01, 9, 0.0, 3, 3, 3),
    ],
)
def test_how_many(
    fraction: float, minimum: int, over: float, candidates: int, target: int, members: int
) -> None:
    participation = ParticipationSpec(fraction=fraction, minimum=minimum, over_selection=over)
    chosen = select(NAMES[:candidates], participation, 0, 1)
    assert (chosen.target, len(chosen.members)) == (target, members)
    assert needed(candidates, participation) == target


@pytest.mark.parametrize(
    ("share", "target", "least"),
    [(0.5, 3, 2), (0.5, 2, 1), (1.0, 3, 3), (0.01, 3, 1), (0.7, 10, 7), (0.5, 1, 1)],
)
def test_quorum_is_a_share_rounded_up(share: float, target: int, least: int) -> None:
    assert quorum(target, ParticipationSpec(quorum=share)) == least


def test_every_device_gets_its_turn() -> None:
    """1000 rounds of 2 of 8: 250 each, within five standard deviations of 13.7."""
    participation = ParticipationSpec(fraction=0.25)
    counts = Counter(
        name
        for number in range(1000)
        for name in select(NAMES[:8], participation, 3, number).members
    )
    assert set(counts) == set(NAMES[:8])
    assert all(abs(count - 250) < 5 * 13.7 for count in counts.values())


def test_rounds_and_seeds_draw_apart() -> None:
    participation = ParticipationSpec(fraction=0.5)
    drawn = {select(NAMES, participation, seed, number) for seed in (1, 2) for number in (1, 2, 3)}
    assert len(drawn) == 6
    assert select(NAMES, replace(participation, deadline_s=9), 1, 1) in drawn


def test_a_known_answer() -> None:
    chosen = select(["a", "b", "c", "d", "e"], ParticipationSpec(fraction=0.4), 7, 1)
    assert (chosen.members, chosen.target) == (("b", "e"), 2)

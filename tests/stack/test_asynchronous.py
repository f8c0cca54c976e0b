"""An asynchronous job on a real site: nobody waits, and a killed coordinator loses no update."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest

from tests.stack.conftest import EXACT, Running

pytestmark = [pytest.mark.stack, pytest.mark.slow]

BUFFERED: dict[str, Any] = {
    **EXACT,
    "name": "asynchronous",
    "train": {**EXACT["train"], "local_steps": 4},
    "strategy": {"name": "fedavg"},
    "participation": {
        **EXACT["participation"],
        "mode": "buffered",
        "buffer_size": 2,
        "staleness_discount": "polynomial",
    },
    "evaluation": {"every": 2, "initial": False},
    "rounds": 4,
}


@pytest.fixture(scope="module")
def job(running: Running) -> dict[str, Any]:
    """A job of four versions; the coordinator is killed while the second one collects."""
    launched = running.site.launch(BUFFERED)
    running.wait("a first version", lambda: _closed(running, launched))
    running.stack.processes.kill("coordinator")
    time.sleep(1.0)
    running.stack.start_part("coordinator")
    return running.done(launched)


def _closed(running: Running, job: dict[str, Any]) -> bool:
    return any(row["number"] == 1 and row["phase"] == "closed" for row in running.rounds(job))


def test_each_version_folds_two_updates(running: Running, job: dict[str, Any]) -> None:
    versions = [row for row in running.rounds(job) if row["number"] > 0]
    assert [(row["number"], row["phase"]) for row in versions] == [
        (number, "closed") for number in (1, 2, 3, 4)
    ]
    for row in versions:
        updates = row["fold"]["updates"]
        assert len(updates) == 2
        for update in updates:
            assert update["staleness"] == row["number"] - update["base"] >= 0
            assert update["discount"] == pytest.approx((1 + update["staleness"]) ** -0.5)
    folded = running.assignments(job, task="train", phase="folded")
    counted = [update["assignment"] for row in versions for update in row["fold"]["updates"]]
    assert sorted(counted) == sorted(row["id"] for row in folded), "each update once"


def test_each_version_starts_from_the_last(running: Running, job: dict[str, Any]) -> None:
    versions = running.rounds(job)[1:]
    for former, row in pairwise(versions):
        assert row["base_artefact"] == former["global_artefact"]
    assert len({row["global_artefact"] for row in versions}) == 4


def test_all_devices_evaluate_the_last_version(running: Running, job: dict[str, Any]) -> None:
    versions = running.rounds(job)
    assert versions[0]["evaluation"] == {} and versions[1]["evaluation"] == {}
    assert versions[4]["evaluation"]["devices"] == 3
    assert versions[4]["evaluation"]["loss"] > 0
    unfinished = [row for row in running.assignments(job) if row["ended_at"] is None]
    assert unfinished == [], "nobody works on for a job that is over"

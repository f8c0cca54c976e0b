"""Aggregator devices as real processes: three trainers, two that fold, one of them killed at it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack.conftest import EXACT, Running
from tests.stack.simulation import simulated
from tests.stack.slow_folder import BEGUN

pytestmark = [pytest.mark.stack, pytest.mark.slow]

HUBS = ("hub-x", "hub-y")
# hub-x folds two trainers; hub-y folds what it sends, and the third trainer's update.
PARENTS = ["clinic-tablet=hub-x", "law-office-pc=hub-x", "hub-x=hub-y", "workshop-pi=hub-y"]
FLAT: dict[str, Any] = {
    **EXACT,
    "name": "clusters",
    "data": {"max_validation_examples": 2, "max_source_tokens": 96, "max_target_tokens": 24},
    "train": {**EXACT["train"], "local_steps": 2, "batch_size": 2},
    "strategy": {"name": "fedavg"},
    "evaluation": {"every": 0, "initial": False},
}
TREE = {**FLAT, "tree": {"parents": PARENTS}}


@pytest.fixture(scope="module")
def hubs(running: Running) -> Iterator[Running]:
    """The site with two devices that hold no data and may fold; the first one's agent is slow."""
    for name in HUBS:
        token = running.site.post("/enrolments/", {"name": name, "role": "aggregator"})["token"]
        running.stack.enrol_agent(name, str(token), {})
        running.stack.start_agent(name)
    names = {*HUBS}
    running.wait("both hubs online", lambda: names <= online(running))
    yield running
    processes = running.stack.processes
    processes.stop(*({f"agent-{name}" for name in HUBS} & set(processes.running)))


def online(running: Running) -> set[str]:
    rows = running.site.all_rows("/devices/")
    return {row["name"] for row in rows if row["presence"] == "online"}


def folds(running: Running, job: dict[str, Any]) -> list[tuple[int, str, str]]:
    rows = running.assignments(job, task="fold")
    folds_made = [(row["round_number"], row["device_name"], row["phase"]) for row in rows]
    return sorted(folds_made)


def shas(running: Running, job: dict[str, Any]) -> list[str]:
    return [row["global_artefact"] or row["base_artefact"] for row in running.rounds(job)]


def test_two_levels_of_clusters_make_the_simulations_weights(hubs: Running, tmp_path: Path) -> None:
    job = hubs.done(hubs.site.launch(TREE))
    assert folds(hubs, job) == [(number, name, "folded") for number in (1, 2) for name in HUBS]
    log = [event["text"] for event in hubs.site.events_after(job["id"], 0)]
    assert any(
        t.startswith("hub-x, round 1: aggregated clinic-tablet, law-office-pc: ") for t in log
    )
    assert any(t.startswith("hub-y, round 2: aggregated workshop-pi, hub-x: ") for t in log)
    assert [sha for sha, _ in simulated(hubs, TREE, tmp_path)] == shas(hubs, job)


def test_hub_killed_in_mid_fold_loses_no_update(hubs: Running, tmp_path: Path) -> None:
    """Its training process dies in the fold, by SIGKILL; its next start folds, to the same bits."""
    stack = hubs.stack
    reference = hubs.done(hubs.site.launch(TREE))
    stack.processes.stop("agent-hub-x")
    slow(hubs)
    job = hubs.site.launch(TREE)
    begun = stack.folder / "devices" / "hub-x" / BEGUN
    hubs.wait("fold that has begun", begun.exists)
    stack.processes.kill("agent-hub-x")
    slow(hubs)
    job = hubs.done(job)
    assert (1, "hub-x", "expired") in folds(hubs, job)
    assert (1, "hub-x", "folded") in folds(hubs, job)
    assert shas(hubs, job) == shas(hubs, reference)


def slow(running: Running) -> None:
    command = [sys.executable, "-m", "tests.stack.slow_folder", "run"]
    command += ["--server", running.stack.url, "--threads", "1"]
    env = running.stack.agent_env("hub-x")
    running.stack.processes.start("agent-hub-x", command, env)
    running.wait("hub-x online", lambda: "hub-x" in online(running))


def test_job_without_its_hubs_equals_a_flat_one(hubs: Running, tmp_path: Path) -> None:
    """Both are killed and stay away; the server folds all updates one by one."""
    hubs.stack.processes.kill("agent-hub-x")
    hubs.stack.processes.kill("agent-hub-y")
    hubs.wait("both hubs offline", lambda: not {*HUBS} & online(hubs))
    job = hubs.done(hubs.site.launch(TREE))
    assert {phase for _, _, phase in folds(hubs, job)} == {"expired"}
    flat = hubs.done(hubs.site.launch(FLAT))
    assert shas(hubs, job) == shas(hubs, flat)

"""Models that teach each other as a launched job: two leaves with nano, one parent with micro."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stack.conftest import EXACT, Running
from tests.stack.slow_sender import DONE

pytestmark = [pytest.mark.stack, pytest.mark.slow]

LEAVES = ("clinic-tablet", "law-office-pc")
PARENT = "hub-m"
SPEC: dict[str, Any] = {
    **EXACT,
    "name": "agglomerative",
    "data": {"max_validation_examples": 2, "max_source_tokens": 96, "max_target_tokens": 24},
    "train": {**EXACT["train"], "local_steps": 2, "batch_size": 2},
    "strategy": {"name": "fedavg"},
    "method": {"name": "agglomerative"},
    "distill": {"samples": 16, "top_k": 8},
    "tree": {"parents": [f"{leaf}={PARENT}" for leaf in LEAVES]},
    "participation": {**EXACT["participation"], "minimum": 2},
    "evaluation": {"every": 0, "initial": False},
}


@pytest.fixture(scope="module")
def parent(running: Running) -> Iterator[Running]:
    """The site with one device more, which holds no data and may be a parent."""
    token = running.site.post("/enrolments/", {"name": PARENT, "role": "aggregator"})["token"]
    running.stack.enrol_agent(PARENT, str(token), {})
    running.stack.start_agent(PARENT)
    running.wait("the parent online", lambda: online(running, PARENT))
    yield running
    processes = running.stack.processes
    processes.stop(*({f"agent-{PARENT}"} & set(processes.running)))


def online(running: Running, name: str) -> bool:
    rows = running.site.all_rows("/devices/")
    return any(row["name"] == name and row["presence"] == "online" for row in rows)


def node_models(running: Running, job: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of the model that each device keeps of the last round."""
    digests = {}
    for name in (*LEAVES, PARENT):
        folder = running.stack.folder / "devices" / name
        (path,) = folder.rglob(f"private/{job['id']}/own-model-000002-000.safetensors")
        digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def results(running: Running, job: dict[str, Any]) -> list[str]:
    return [row["global_artefact"] for row in running.rounds(job)[1:]]


@pytest.fixture(scope="module")
def bits(parent: Running, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = {name: parent.data[name] for name in LEAVES}
    folder = tmp_path_factory.mktemp("simulated")
    return dict(parent.simulator.ask("agglomerative", SPEC, data, folder))


def same_bits(running: Running, job: dict[str, Any], bits: dict[str, Any]) -> None:
    """The parent's logits in round 1, its model in the last round, and every node's model."""
    assert results(running, job) == [bits["logits"][1], bits["nodes"][2][PARENT]]
    assert node_models(running, job) == bits["nodes"][2]


def test_launched_tree_equals_the_simulation(parent: Running, bits: dict[str, Any]) -> None:
    job = parent.done(parent.site.launch(SPEC))
    same_bits(parent, job, bits)
    rows = parent.assignments(job, phase="folded")
    sent = {(row["device_name"], row["task"]): row["metrics"] for row in rows}
    assert 0 < sent[PARENT, "fold"]["bridge_loss"] < 20
    leaf = [row for row in rows if row["device_name"] == LEAVES[0] and row["task"] == "train"]
    assert [row["bytes_up"] < 50_000 for row in leaf] == [True, True]
    log = [event["text"] for event in parent.site.events_after(job["id"], 0)]
    assert any(t.startswith(f"{PARENT}, round 1: distilled {', '.join(LEAVES)}: ") for t in log)


def test_killed_leaf_and_parent_resume_from_their_files(
    parent: Running, bits: dict[str, Any]
) -> None:
    """Each dies by SIGKILL after its training; its next start begins from the file before it."""
    for name in (LEAVES[0], PARENT):
        parent.stack.processes.stop(f"agent-{name}")
        slow(parent, name)
    job = parent.site.launch(SPEC)
    for name in (LEAVES[0], PARENT):
        done = parent.stack.folder / "devices" / name / DONE
        parent.wait(f"{name} with its work done", done.exists)
        parent.stack.processes.kill(f"agent-{name}")
        parent.stack.start_agent(name)
    job = parent.done(job)
    ended = {(row["device_name"], row["task"], row["attempt"]): row["phase"]
             for row in parent.assignments(job) if row["round_number"] == 1}  # fmt: skip
    assert ended[LEAVES[0], "train", 1] == ended[PARENT, "fold", 1] == "expired"
    assert ended[LEAVES[0], "train", 2] == ended[PARENT, "fold", 2] == "folded"
    same_bits(parent, job, bits)


def slow(running: Running, name: str) -> None:
    """Start an agent that does its first work and then sends nothing."""
    command = [sys.executable, "-m", "tests.stack.slow_sender", "run"]
    command += ["--server", running.stack.url, "--threads", "1"]
    running.stack.processes.start(f"agent-{name}", command, running.stack.agent_env(name))
    running.wait(f"{name} online", lambda: online(running, name))

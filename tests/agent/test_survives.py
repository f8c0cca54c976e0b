"""Killing the agent, its worker or the server: no sample is lost or sent twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil

from tests.agent.conftest import ROOT, AgentProcess, is_gone, wait_for
from tests.agent.stand_in import StandIn
from workers.agent.state import credentials
from workers.agent.state.database import StateDatabase
from workers.agent.state.outbox import Outbox


def test_agent_killed_during_a_round_restarts(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    offered = server.offer("steps=1000 pause=0.05")
    wait_for(lambda: len(server.samples) > 20)
    children = agent.children()
    assert children
    second = subprocess.run(
        [sys.executable, "-m", "workers.agent", "run", "--state-dir", str(agent.state_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert second.returncode == 2
    assert f"process {agent.pid}" in second.stderr

    server.away = True  # what is measured now is not heard of before the kill
    time.sleep(0.5)
    agent.send(signal.SIGKILL)
    agent.wait(2)
    wait_for(lambda: all(is_gone(pid) for pid in children), 2)
    last_acknowledged = max(server.samples)
    outbox = Outbox(StateDatabase(agent.state_dir / "agent.sqlite3"))
    assert len(outbox) > 0
    last = outbox.oldest(1000)[-1].seq
    assert last > last_acknowledged

    server.away = False
    agent.start()
    assert server.hellos[-1]["boot_id"] != server.hellos[-2]["boot_id"]
    wait_for(lambda: max(server.samples) == last)
    offered.phase = "reported"
    again = server.offer("steps=10")
    wait_for(lambda: again.phase == "reported")
    wait_for(lambda: len(outbox) == 0)
    assert sorted(server.samples) == list(range(1, max(server.samples) + 1))
    assert max(server.samples) > last


def test_server_away_and_back(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    offered = server.offer("steps=30 pause=0.05")
    wait_for(lambda: offered.phase == "training")
    server.stop()
    time.sleep(3)  # the training ends meanwhile, its answer waits
    assert not offered.report
    server.come_back()
    wait_for(lambda: offered.phase == "reported", 20)
    assert offered.update
    steps = [item["values"].get("step") for item in server.samples.values()]
    wait_for(lambda: len(server.samples) >= 30)
    steps = [item["values"].get("step") for _, item in sorted(server.samples.items())]
    assert [step for step in steps if step] == list(range(1, 31))
    assert sorted(server.samples) == list(range(1, max(server.samples) + 1))

    again = server.offer("steps=1")
    wait_for(lambda: again.phase == "reported", 20)

    server.revoked = True
    assert agent.wait(10) == 3
    assert "credential was revoked" in agent.log


def test_server_unavailable_at_the_start(agent: AgentProcess, server: StandIn) -> None:
    server.stop()
    agent.start(ready=False)
    wait_for(lambda: "no line to the server: no answer from the server" in agent.log)
    agent.send(signal.SIGTERM)
    assert agent.wait(3.2) == 0
    server.come_back()
    server.revoked = True
    agent.start(ready=False)
    assert agent.wait(10) == 3


def test_killed_worker_is_replaced_and_gets_the_offers(
    agent: AgentProcess, server: StandIn
) -> None:
    agent.start()
    first = server.offer("steps=1000 pause=0.05")
    waiting = server.offer("steps=1")
    wait_for(lambda: first.phase == "training")
    (worker,) = psutil.Process(agent.pid).children()
    child = worker.children()[0]
    worker.kill()
    wait_for(lambda: first.failure, 10)
    assert "ended unexpectedly" in first.failure["reason"]
    assert is_gone(child.pid), "the training process ends with its worker"
    wait_for(lambda: waiting.phase == "reported", 20)
    assert "the Celery worker ended by itself (code -9); restarting" in agent.log
    assert [kind for kind, body in server.frames if body.get("assignment") == waiting.id].count(
        "accept"
    ) == 1


def test_worker_ends_with_the_agent(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    children = agent.children()
    assert len(children) == 2
    agent.send(signal.SIGKILL)
    wait_for(lambda: all(is_gone(pid) for pid in children), 2)
    wait_for(lambda: server.line.is_over)


def test_server_at_a_new_address(agent: AgentProcess, server: StandIn) -> None:
    before = credentials.require(agent.state_dir)
    credentials.save(agent.state_dir, replace(before, server="http://127.0.0.1:9"))
    agent.start("--server", server.url)
    offered = server.offer("steps=1")
    wait_for(lambda: offered.phase == "reported")
    assert credentials.require(agent.state_dir) == before

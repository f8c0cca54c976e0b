"""The agent as a real process: it runs assignments, reports, and stops on request."""

from __future__ import annotations

import hashlib
import signal
import time

from tests.agent.conftest import AgentProcess, is_gone, slack, wait_for
from tests.agent.stand_in import StandIn


def test_trains_evaluates_and_stops(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    weights = bytes(range(256)) * 4000
    server.cut_downloads_at = [500_000]
    server.cut_uploads_at = [300_000]
    trained = server.offer("steps=40 pause=0.05 bytes=700000", weights=weights)
    evaluated = server.offer("steps=2", "evaluate", weights=weights)
    wait_for(lambda: evaluated.phase == "reported", 15)

    assert trained.phase == "reported"
    assert trained.update == weights[:700_000]
    report = trained.report
    assert report["examples"] == 12
    assert report["metrics"]["meta"]["base"] == hashlib.sha256(weights).hexdigest()
    assert report["metrics"]["download_s"] > 0
    assert report["metrics"]["wait_s"] > 0.5
    assert report["bytes_down"] > len(weights)
    assert report["bytes_up"] >= 700_000
    # The broken transfers went on, and the second assignment needed no download.
    assert server.uploads == ["PATCH 0", "HEAD", "PATCH 300000"]
    assert server.downloads == ["", "bytes=500000-"]
    assert evaluated.report["update"] is None
    assert evaluated.report["bytes_down"] < 5000

    wait_for(lambda: server.activities[-1]["assignment"] is None)
    phases = {item["phase"] for item in server.activities if item["assignment"] == trained.id}
    assert "training" in phases
    values = [item["values"] for item in server.samples.values() if item["assignment"]]
    assert {"step", "loss", "memory_bytes", "cpu_percent", "net_down_bps"} <= set(values[5])
    assert all("mfu" not in item for item in values)  # it was not a number
    assert list(server.samples) == sorted(server.samples)

    child = agent.children()
    agent.send(signal.SIGTERM)
    assert agent.wait(3.2) == 0
    wait_for(lambda: all(is_gone(pid) for pid in child), 1)


def test_stop_during_training_is_reported_to_the_server(
    agent: AgentProcess, server: StandIn
) -> None:
    agent.start()
    offered = server.offer("steps=1000 pause=0.05")
    wait_for(lambda: offered.phase == "training")
    agent.send(signal.SIGINT)
    assert agent.wait(3.2) == 0
    assert offered.failure["reason"] == "the agent was stopped"
    assert offered.failure["retryable"] is True


def test_second_interrupt_ends_quietly(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    offered = server.offer("steps=1000 pause=0.05 stubborn")
    wait_for(lambda: offered.phase == "training")
    children = agent.children()
    agent.send(signal.SIGINT)
    time.sleep(0.7)
    agent.send(signal.SIGINT)
    assert agent.wait(0.5) == 0
    wait_for(lambda: all(is_gone(pid) for pid in children), 1)
    assert "Traceback" not in agent.log and "worker:" not in agent.log


def test_cancel_within_2_s(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    for wish in ("", " stubborn"):
        offered = server.offer("steps=1000 pause=0.05" + wish)
        wait_for(lambda offered=offered: offered.phase == "training")
        began = time.monotonic()
        server.cancel(offered, f"the job was paused {wish}")
        wait_for(lambda: server.activities[-1]["assignment"] is None)
        assert time.monotonic() - began < 2 * slack()
        assert not offered.failure
        assert not offered.report
    # After all that it still works.
    last = server.offer("steps=1")
    wait_for(lambda: last.phase == "reported")
    assert "the job was paused" in agent.log


def test_cancelled_before_its_turn(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    first = server.offer("steps=20 pause=0.05")
    second = server.offer("steps=1")
    server.cancel(second, "the job was stopped")
    wait_for(lambda: "was not accepted: the job was stopped" in agent.log)
    assert (first.phase, second.phase) == ("reported", "offered")


def test_failures_report_reason_and_whether_to_retry(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    failures = {}
    for cause in ("data", "cannot", "memory", "crash"):
        offered = server.offer(f"fail={cause}")
        wait_for(lambda offered=offered: offered.failure)
        failures[cause] = (offered.phase, offered.failure.get("retryable"))
        assert len(offered.failure["reason"]) > 20
    assert failures == {
        "data": ("fail", False),
        "cannot": ("refuse", None),
        "memory": ("fail", False),
        "crash": ("fail", True),
    }
    too_large = server.offer("bytes=1000001", weights=b"x" * 1_000_002)
    wait_for(lambda: too_large.failure)
    assert "1000001 bytes" in too_large.failure["reason"]


def test_messages_not_from_the_server_are_refused(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    done = server.offer("steps=1")
    wait_for(lambda: done.phase == "reported")
    replayed = server.envelope("work", done.id)
    wait_for(lambda: server.activities and server.activities[-1]["assignment"] is None)
    server.send(replayed)  # a second offer of the same assignment: 409, dropped
    wait_for(lambda: "was not accepted: the assignment is reported" in agent.log)
    done.phase = "offered"
    forged = server.envelope("work", done.id)
    forged["body"] = forged["body"].replace('"work"', '"work" ')
    bad_ones = (
        replayed,
        forged,
        server.envelope("work", done.id, device=8),
        server.envelope("work", done.id, expires_at=time.time() - 1),
        server.envelope("cancel", done.id),
    )
    for count, bad in enumerate(bad_ones, start=1):
        server.send(bad)
        wait_for(lambda count=count: agent.log.count("refused an offer") == count)
    server.send({"body": 3})
    wait_for(lambda: "a wrong offer" in agent.log)
    assert done.phase == "offered"
    for text in ("seen before", "signature", "for device 8", "expired", "kind"):
        assert text in agent.log

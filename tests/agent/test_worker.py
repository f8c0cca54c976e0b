"""Celery's worker on the device: offers begin at once, and killed processes are replaced."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import psutil
import pytest

from tests.agent.conftest import AgentProcess, is_gone, slack, wait_for
from tests.agent.stand_in import Offered, StandIn

KILLS, MANY_KILLS, OFFERS = 20, 200, 200


def worker_and_child(agent: AgentProcess) -> tuple[psutil.Process, psutil.Process]:
    (worker,) = psutil.Process(agent.pid).children()
    wait_for(worker.children)
    return worker, worker.children()[0]


def sockets(pid: int) -> set[str]:
    """The sockets of a process, by the kernel's numbers."""
    targets = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        target = str(path.readlink())
        if target.startswith("socket:"):
            targets.add(target)
    return targets


def test_offers_begin_within_20_ms(agent: AgentProcess, server: StandIn) -> None:
    """From the site's sending to the arrival of the acceptance there: two ways and the task."""
    agent.start()
    delays_s = []
    for _ in range(OFFERS):
        offered, began = server.offer("steps=1 pause=0"), time.monotonic()
        wait_for(lambda offered=offered: offered.phase == "reported")
        delays_s.append(offered.accepted_at - began)
    milliseconds = sorted(1000 * delay_s for delay_s in delays_s)
    median = statistics.median(milliseconds)
    print(f"offer to acceptance: {median:.1f} ms in the median, most {milliseconds[-1]:.1f} ms")
    assert median < 100 * slack()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_training_process_inherits_no_line(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    for _ in range(2):
        worker, child = worker_and_child(agent)
        # The other two wake the worker's loop: kombu makes them, and the child may have them.
        wait_for(lambda worker=worker: len(sockets(worker.pid)) == 3)
        assert len(sockets(worker.pid) - sockets(child.pid)) in (1, 3)
        assert not sockets(child.pid) & sockets(agent.pid)
        child.kill()  # its successor is forked while the worker takes offers
        pid = child.pid
        wait_for(lambda worker=worker, pid=pid: worker.children() and pid not in pids_of(worker))


def pids_of(worker: psutil.Process) -> list[int]:
    return [child.pid for child in worker.children()]


def kill_in_turn(agent: AgentProcess, server: StandIn, kills: int) -> list[float]:
    """Kill the training process again and again; returns the seconds until work went on."""
    agent.start()
    seconds = []
    for number in range(kills):
        victim = server.offer("steps=1000 pause=0.02")
        wait_for(lambda victim=victim: victim.phase in ("accepted", "training"))
        if number % 3 == 0:  # others are killed while they begin
            wait_for(lambda victim=victim: victim.phase == "training")
        _, child = worker_and_child(agent)
        child.kill()
        began = time.monotonic()
        wait_for(lambda victim=victim: victim.failure)
        following = server.offer("steps=1 pause=0")
        wait_for(lambda following=following: following.phase == "reported")
        seconds.append(time.monotonic() - began)
    return seconds


def test_killed_training_process_is_replaced(agent: AgentProcess, server: StandIn) -> None:
    seconds = kill_in_turn(agent, server, KILLS)
    print(f"after a kill work went on within {max(seconds):.2f} s, {len(seconds)} times")
    assert statistics.median(seconds) < 2 * slack()


@pytest.mark.prove
@pytest.mark.timeout(600)
def test_training_process_killed_200_times(agent: AgentProcess, server: StandIn) -> None:
    seconds = kill_in_turn(agent, server, MANY_KILLS)
    print(f"after a kill work went on within {max(seconds):.2f} s, {len(seconds)} times")


def test_offer_of_a_process_killed_before_it_accepts(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    first_line = server.line
    first_line.is_deaf = True  # its acceptance is not answered
    offered = server.offer("steps=1 pause=0")
    time.sleep(0.5)
    _, child = worker_and_child(agent)
    child.kill()
    wait_for(lambda: is_gone(child.pid))
    first_line.is_deaf = False
    wait_for(lambda: offered.phase == "reported")


def test_large_description_is_fetched(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    offered = server.offer("steps=1 " + "x" * 70_000)
    wait_for(lambda: offered.phase == "reported")
    assert server.fetched_assignments == [offered.id]


def test_work_goes_on_after_a_cut_of_the_line(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    offered = server.offer("steps=20 pause=0.02")
    wait_for(lambda: offered.phase == "training")
    server.cut_after = ["report", "accept"]
    wait_for(lambda: offered.phase == "reported")
    again = server.offer("steps=1")
    wait_for(lambda: again.phase == "reported")
    assert frames_about(server, offered, "report") == 2
    assert frames_about(server, again, "accept") == 2
    assert "did not accept" not in agent.log and "failed" not in agent.log
    assert len(server.hellos) == 3


def frames_about(server: StandIn, offered: Offered, kind: str) -> int:
    return sum(
        1 for name, body in server.frames if (name, body.get("assignment")) == (kind, offered.id)
    )


def test_log_is_quiet(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    offered = server.offer("steps=1")
    wait_for(lambda: offered.phase == "reported")
    time.sleep(0.3)
    lines = agent.log.splitlines()
    assert len(lines) <= 4, agent.log
    assert all(" INFO " in line for line in lines), agent.log

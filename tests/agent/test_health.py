"""A device without space or store says so, takes no work, and works again once it is mended."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedcore.formats.line_bodies import HealthBody
from tests.agent.conftest import AgentProcess, slack, wait_for
from tests.agent.stand_in import StandIn
from tests.disk import DISK_BYTES, SmallDisk
from workers.agent.control.health import DeviceHealth, is_news
from workers.agent.http.server_clock import Clock
from workers.agent.state.database import StateDatabase
from workers.agent.state.shared_state import SharedState

BOUND = 1_000_000


@pytest.fixture
def state_disk(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDisk]:
    """The state folder is a file system of a few megabytes, of which a run needs one."""
    content = state_dir.with_name("content")
    shutil.copytree(state_dir, content)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "edgewise-test", str(state_dir)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    shutil.copytree(content, state_dir, dirs_exist_ok=True)
    monkeypatch.setenv("EDGEWISE_MIN_FREE_BYTES", str(BOUND))
    monkeypatch.setenv("STUB_CHECK_S", "0.2")
    try:
        yield SmallDisk(state_dir)
    finally:
        subprocess.run(["umount", "-l", str(state_dir)], check=True)


def healths(server: StandIn) -> list[dict[str, Any]]:
    return [body for kind, body in server.frames if kind == "health"]


def told(server: StandIn, **expected: Any) -> bool:
    """Whether the newest health says this."""
    newest = healths(server)[-1:]
    return any(all(body[key] == value for key, value in expected.items()) for body in newest)


def test_full_disk_takes_no_work_until_it_is_free(
    state_disk: SmallDisk, agent: AgentProcess, server: StandIn
) -> None:
    agent.start()
    wait_for(lambda: told(server, disk_full=False, store_failed=False))
    state_disk.fill()
    waiting = server.offer("steps=1")  # before the next regular look
    wait_for(lambda: told(server, disk_full=True))
    assert healths(server)[-1]["disk_free_bytes"] < BOUND
    assert "this device takes no work: the disk of" in agent.log
    assert "(0.0 MB free, 1.0 MB needed)" in agent.log
    assert waiting.phase == "offered"
    server.line.cut()  # the site offers it again on the next line
    wait_for(lambda: len(server.lines) == 2 and told(server, disk_full=True))
    assert len(server.hellos) == 2
    state_disk.free()
    wait_for(lambda: waiting.phase == "reported", 20)
    wait_for(lambda: told(server, disk_full=False, store_failed=False))
    assert "this device takes work again" in agent.log


def test_agent_that_starts_on_a_full_disk_connects_and_recovers(
    state_disk: SmallDisk, agent: AgentProcess, server: StandIn
) -> None:
    agent.start()
    first = server.offer("steps=1")
    wait_for(lambda: first.phase == "reported")
    agent.process.kill()  # type: ignore[union-attr]
    agent.wait(5)
    state_disk.fill()
    agent.start(ready=False)
    wait_for(lambda: told(server, disk_full=True), 20)
    offered = server.offer("steps=1")
    time.sleep(1.0 * slack())
    assert offered.phase == "offered"
    state_disk.free()
    wait_for(lambda: offered.phase == "reported", 20)


def test_nothing_is_sent_or_logged_while_nothing_changes(
    state_disk: SmallDisk, agent: AgentProcess, server: StandIn
) -> None:
    agent.start()
    wait_for(lambda: healths(server))
    before = len(server.frames), agent.log
    time.sleep(2.0 * slack())  # ten looks
    assert (len(server.frames), agent.log) == before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


def health_of(folder: Path, bound: int = BOUND, clock: Clock | None = None) -> DeviceHealth:
    shared_state = SharedState(StateDatabase(folder / "agent.sqlite3"))
    shared_state.wipe()
    return DeviceHealth(folder, bound, shared_state, clock or Clock())


def test_store_that_cannot_be_written_blocks_work(folder: Path) -> None:
    """Here its table is gone; a card that went read-only fails in the same call."""
    database = StateDatabase(folder / "agent.sqlite3")
    shared_state = SharedState(database)
    shared_state.wipe()
    health = DeviceHealth(folder, BOUND, shared_state, Clock())
    assert (health.check().store_failed, health.can_work()) == (False, True)
    with database.transaction() as db:
        db.execute("ALTER TABLE note RENAME TO lost")
    assert health.check().store_failed and not health.can_work()
    assert "cannot be written" in health.problem()
    with database.transaction() as db:
        db.execute("ALTER TABLE lost RENAME TO note")
    assert not health.check().store_failed and health.can_work() and not health.problem()


def test_disk_near_the_bound_does_not_alternate(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    health = health_of(folder, bound=free + 10**9)
    assert health.check().disk_full
    health.min_free_bytes = int(free * 0.99)
    assert health.check().disk_full, "a little more than the bound is not enough"
    health.min_free_bytes = int(free * 0.5)
    assert not health.check().disk_full


@pytest.mark.parametrize("off_s", [0.0, 2.0, 7200.0, -90_000.0])
def test_clock_is_compared_with_the_sites(folder: Path, off_s: float) -> None:
    clock = Clock()
    clock.observe_time(time.time() - off_s)
    ahead_s = health_of(folder, clock=clock).check().clock_ahead_s
    assert ahead_s == pytest.approx(off_s if abs(off_s) > 5 else 0.0, abs=1.0)


SENT = HealthBody(10_000_000_000)


@pytest.mark.parametrize(
    ("health", "news"),
    [
        (SENT, False),
        (HealthBody(9_100_000_000), False),
        (HealthBody(8_900_000_000), True),
        (HealthBody(12_000_000_000), True),
        (HealthBody(10_000_000_000, disk_full=True), True),
        (HealthBody(10_000_000_000, store_failed=True), True),
        (HealthBody(10_000_000_000, clock_ahead_s=4.0), False),
        (HealthBody(10_000_000_000, clock_ahead_s=-60.0), True),
    ],
)
def test_only_changes_are_news(health: HealthBody, news: bool) -> None:
    assert is_news(health, SENT) is news

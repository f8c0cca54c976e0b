"""What a site depends on is away, full, killed or there twice: its jobs end with the same bits."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from benchmarks.chaos import victims
from benchmarks.chaos.strikes import MOMENTS
from fedcore.rounds.types import RoundPhase
from tests.stack.faults import AWAY_S, FaultSite, started
from workers.stack.stack import BROKER

pytestmark = [pytest.mark.stack, pytest.mark.slow]

# The first draw by which so few kills meet every target and every state.
KILLS, SEED = 10, 159


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSite]:
    with started(tmp_path_factory.mktemp("failures") / "site", {}) as site:
        yield site


def test_killed_processes_change_no_bits(site: FaultSite) -> None:
    kills = site.kill_processes(KILLS, SEED)
    assert len(kills) == KILLS
    assert {kill.strike.moment for kill in kills} == set(MOMENTS)
    assert {kill.strike.target for kill in kills} == set(victims.targets(site.chaos.stack))


def test_database_locked_beyond_all_patience(site: FaultSite) -> None:
    path = site.chaos.stack.folder / "var" / "edgewise.sqlite3"

    def lock() -> None:
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            time.sleep(AWAY_S)
            other.execute("ROLLBACK")

    site.during(RoundPhase.COLLECTING, lock)


def _take_away(site: FaultSite) -> None:
    """The broker is killed, and comes back without its data."""
    (name,) = site.chaos.stack.managed_brokers
    site.chaos.stack.processes.kill(f"{BROKER}{name}")
    time.sleep(AWAY_S)
    site.chaos.stack.start_broker(name)


def _flush(site: FaultSite) -> None:
    """All queues, the cache and what waits in them are gone."""
    with closing(redis.Redis.from_url(site.chaos.stack.env["REDIS_URL"])) as broker:
        broker.flushall()


def _take_memory(site: FaultSite) -> None:
    """The broker refuses every write for a while."""
    with closing(redis.Redis.from_url(site.chaos.stack.env["REDIS_URL"])) as broker:
        before = broker.config_get("maxmemory")["maxmemory"]
        broker.config_set("maxmemory", 1)
        try:
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                broker.set("edgewise-test", "1")
            time.sleep(AWAY_S)
        finally:
            broker.config_set("maxmemory", before)


TROUBLES = {"gone": _take_away, "flushed": _flush, "full": _take_memory}


@pytest.mark.parametrize("moment", [RoundPhase.COLLECTING, RoundPhase.BROADCASTING])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_offers_arrive_after_the_brokers_trouble(
    site: FaultSite, trouble: str, moment: RoundPhase
) -> None:
    site.during(moment, lambda: TROUBLES[trouble](site))


def test_two_coordinators_and_two_clocks_at_once(site: FaultSite) -> None:
    """Real processes that take every message and every pass between them, for a whole job."""
    stack = site.chaos.stack
    second = {"coordinator-2": "coordinator", "beat-2": "beat"}
    for name, part in second.items():
        words = [word.replace(f"{part}@", f"{name}@") for word in stack.command(part)]
        words = [
            word if word != str(stack.folder / "var" / "beat") else f"{word}-2" for word in words
        ]
        stack.processes.start(name, words, stack.env)
    try:
        site.during(RoundPhase.COLLECTING, lambda: None)
        site.during(RoundPhase.AGGREGATING, lambda: None)
        for name in second:
            stack.processes.check(name)
    finally:
        stack.processes.stop(*second)


def test_backup_restored_elsewhere_ends_its_job(site: FaultSite, tmp_path: Path) -> None:
    """The last test of this file: the site has stopped then."""
    site.restore_elsewhere(tmp_path, {})

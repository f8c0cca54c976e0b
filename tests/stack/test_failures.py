"""What a site depends on is away, full or there twice while a job runs: the bits are the same."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis

from benchmarks.chaos.disturbed_jobs import Chaos, JobOutcome, start
from benchmarks.chaos.strikes import Schedule
from fedcore.rounds.types import RoundPhase
from tests.stack import services
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.slow]

LIMIT_S = 240.0
# Longer than a process waits for the database, so that requests and decisions really fail.
AWAY_S, PATIENCE_S = 6.0, 2.0


@dataclass
class Site:
    chaos: Chaos
    reference: JobOutcome

    def during(self, moment: RoundPhase, trouble: Callable[[], None]) -> None:
        """A job in whose first round of training there is trouble; its bits are the same."""
        job = str(self.chaos.site.launch(self.chaos.spec(f"trouble {moment.value}"))["id"])
        deadline = time.monotonic() + LIMIT_S
        while not self._reached(job, moment):
            assert time.monotonic() < deadline, "the job never came there"
            time.sleep(0.003)
        trouble()
        while not self.chaos.watch.state(job).is_over and time.monotonic() < deadline:
            time.sleep(0.1)
        log = "\n".join(self.chaos.watch.log(job))
        assert self.chaos.watch.state(job).job.value == "completed", log
        assert self.chaos.watch.globals(job) == self.reference.weights

    def _reached(self, job: str, moment: RoundPhase) -> bool:
        state = self.chaos.watch.state(job)
        return state.number == 1 and state.round is moment


@contextmanager
def _started(folder: Path, named: dict[str, str]) -> Iterator[Site]:
    patience = {"EDGEWISE_DATABASE_TIMEOUT_S": f"{PATIENCE_S:g}"}
    stack = Stack(folder, {**named, **patience}, web_port=0)
    try:
        chaos = start(stack, devices=2, rounds=1, job_limit_s=LIMIT_S)
        reference = chaos.run("undisturbed", Schedule([]))
        assert not reference.problem
        yield Site(chaos, reference)
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with _started(tmp_path_factory.mktemp("failures") / "site", {}) as made:
        yield made


def test_the_database_is_locked_for_longer_than_anybody_waits(site: Site) -> None:
    path = site.chaos.stack.folder / "var" / "edgewise.sqlite3"

    def lock() -> None:
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            time.sleep(AWAY_S)
            other.execute("ROLLBACK")

    site.during(RoundPhase.COLLECTING, lock)


def _without_memory(url: str) -> None:
    """A broker that refuses every write for a while."""
    with closing(redis.Redis.from_url(url)) as broker:
        before = broker.config_get("maxmemory")["maxmemory"]
        broker.config_set("maxmemory", 1)
        try:
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                broker.set("edgewise-test", "1")
            time.sleep(AWAY_S)
        finally:
            broker.config_set("maxmemory", before)


@pytest.mark.parametrize("moment", [RoundPhase.COLLECTING, RoundPhase.BROADCASTING])
def test_both_brokers_are_out_of_memory(site: Site, moment: RoundPhase) -> None:
    env = site.chaos.stack.env

    def starve() -> None:
        for name in ("DEVICE_REDIS_URL", "REDIS_URL"):
            _without_memory(env[name])

    site.during(moment, starve)


def test_two_coordinators_and_two_clocks_at_once(site: Site) -> None:
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


def test_postgresql_refuses_everybody_for_a_while(tmp_path: Path) -> None:
    named = services.named("TEST_DATABASE_URL")
    with services.fresh_database(named) as url, _started(tmp_path, {"DATABASE_URL": url}) as made:
        name = url.rpartition("/")[2]

        def shut() -> None:
            with psycopg.connect(named, autocommit=True) as server:
                server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
                server.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    (name,),
                )
                time.sleep(AWAY_S)
                server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')

        made.during(RoundPhase.COLLECTING, shut)

"""Kills, a database that refuses everybody, and a backup, on a site that keeps its rows in
PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from benchmarks.chaos.strikes import MOMENTS
from fedcore.rounds.types import RoundPhase
from tests.stack import services
from tests.stack.faults import AWAY_S, FaultSite, started

pytestmark = [pytest.mark.stack, pytest.mark.slow]

KILLS, SEED = 5, 1  # one in each state of a round


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with services.fresh_database(services.named("TEST_DATABASE_URL")) as url:
        yield url


@pytest.fixture(scope="module")
def site(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSite]:
    folder = tmp_path_factory.mktemp("postgresql") / "site"
    with started(folder, {"DATABASE_URL": database}) as site:
        yield site


@pytest.mark.prove
def test_killed_processes_change_no_bits(site: FaultSite) -> None:
    kills = site.kill_processes(KILLS, SEED)
    assert {kill.strike.moment for kill in kills} == set(MOMENTS)


def test_database_refusing_everybody_for_a_while(site: FaultSite, database: str) -> None:
    name = database.rpartition("/")[2]

    def shut() -> None:
        with psycopg.connect(services.named("TEST_DATABASE_URL"), autocommit=True) as server:
            server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (name,),
            )
            time.sleep(AWAY_S)
            server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')

    site.during(RoundPhase.COLLECTING, shut)


def test_backup_restored_elsewhere_ends_its_job(site: FaultSite, tmp_path: Path) -> None:
    """The last test of this file: the site has stopped then."""
    with services.fresh_database(services.named("TEST_DATABASE_URL")) as url:
        site.restore_elsewhere(tmp_path, {"DATABASE_URL": url})

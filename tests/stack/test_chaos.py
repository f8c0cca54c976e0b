"""``make chaos`` as a proof: 45 kills, so that every state of a round meets every target."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.chaos import victims
from benchmarks.chaos.strikes import MOMENTS
from tests.stack import services
from tests.stack.faults import started

KILLS, SEED = 45, 0

pytestmark = [pytest.mark.stack, pytest.mark.prove, pytest.mark.slow, pytest.mark.timeout(2400)]


def _real_servers(closing: ExitStack) -> dict[str, str]:
    """A database and a Redis database for this test, on the servers that the environment names."""
    database = services.fresh_database(services.named("TEST_DATABASE_URL"))
    redis = services.empty_redis(services.named("TEST_REDIS_URL"))
    return {
        "DATABASE_URL": closing.enter_context(database),
        "REDIS_URL": closing.enter_context(redis),
    }


@pytest.mark.parametrize("servers", ["embedded", "postgresql and redis"])
def test_every_target_killed_in_every_state(tmp_path: Path, servers: str) -> None:
    with ExitStack() as closing:
        env = {} if servers == "embedded" else _real_servers(closing)
        site = closing.enter_context(started(tmp_path / "site", env))
        pairs = len(MOMENTS) * len(victims.targets(site.chaos.stack))
        kills = site.kill_processes(KILLS, SEED)
        met = {(kill.strike.moment, kill.strike.target) for kill in kills}
        assert len(met) == min(KILLS, pairs)

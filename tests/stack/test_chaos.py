"""The short form of ``make chaos``: processes killed in every state of a round, bits compared."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.chaos import outcomes, victims
from benchmarks.chaos.disturbed_jobs import JobOutcome, start
from benchmarks.chaos.strikes import MOMENTS, Schedule, draw
from tests.stack import services
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.slow]

KILLS, SEED, JOB_LIMIT_S = 6, 1, 240.0


def _real_servers(closing: ExitStack) -> dict[str, str]:
    """A database and a Redis database of this test's own, on the servers that were named."""
    return {
        "DATABASE_URL": closing.enter_context(
            services.fresh_database(services.named("TEST_DATABASE_URL"))
        ),
        "REDIS_URL": closing.enter_context(services.empty_redis(services.named("TEST_REDIS_URL"))),
    }


@pytest.mark.parametrize("servers", ["embedded", "postgresql and redis"])
def test_a_job_ends_with_the_same_bits_whatever_is_killed(tmp_path: Path, servers: str) -> None:
    with ExitStack() as closing:
        named = {} if servers == "embedded" else _real_servers(closing)
        stack = Stack(tmp_path / "site", named, web_port=0)
        closing.callback(stack.stop)
        chaos = start(stack, devices=2, rounds=2, job_limit_s=JOB_LIMIT_S)
        schedule = Schedule(draw(SEED, KILLS, victims.targets(stack)))
        reference = chaos.run("undisturbed", Schedule([]))
        assert not reference.problem
        jobs: list[JobOutcome] = []
        while schedule.strikes and not outcomes.faults(reference, jobs):
            chaos.settle()
            jobs.append(chaos.run(f"chaos {len(jobs) + 1}", schedule))
        shown = outcomes.table(victims.targets(stack), reference, jobs)
        print(shown)
        assert outcomes.faults(reference, jobs) == []
    kills = [kill for job in jobs for kill in job.kills]
    assert len(kills) == KILLS
    assert {kill.strike.moment for kill in kills} == set(MOMENTS)
    assert "equal bit for bit" in shown

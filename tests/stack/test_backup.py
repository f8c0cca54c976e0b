"""A backup of a running site, restored elsewhere: its job goes on to the same bits."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.chaos.disturbed_jobs import Chaos, start
from benchmarks.chaos.job_database import JobDatabase
from benchmarks.chaos.strikes import Schedule
from fedcore.rounds.types import RoundPhase
from tests.stack import services
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.slow]

LIMIT_S = 240.0


def _database(closing: ExitStack, servers: str) -> dict[str, str]:
    if servers == "sqlite":
        return {}
    named = services.named("TEST_DATABASE_URL")
    return {"DATABASE_URL": closing.enter_context(services.fresh_database(named))}


@pytest.mark.parametrize("servers", ["sqlite", "postgresql"])
def test_a_job_goes_on_from_a_backup_to_the_same_bits(tmp_path: Path, servers: str) -> None:
    if servers == "postgresql" and shutil.which("pg_dump") is None:
        pytest.skip("there is no pg_dump here")
    with ExitStack() as closing:
        first = Stack(tmp_path / "site", _database(closing, servers), web_port=0)
        closing.callback(first.stop)
        chaos = start(first, devices=2, rounds=2, job_limit_s=LIMIT_S)
        reference = chaos.run("undisturbed", Schedule([]))
        assert not reference.problem
        job = _until_it_collects(chaos)
        first.manage("backup", str(tmp_path / "backup"))
        first.stop()

        again = Stack(_elsewhere(first, tmp_path), _database(closing, servers), web_port=0)
        closing.callback(again.stop)
        said = again.manage("restore", str(tmp_path / "backup"))
        assert "the site of" in said
        again.start()
        for device in chaos.devices:
            again.start_agent(device)
        watch = JobDatabase(again.env["DATABASE_URL"])
        deadline = time.monotonic() + LIMIT_S
        while not watch.state(job).is_over and time.monotonic() < deadline:
            time.sleep(0.2)
        assert watch.state(job).job.value == "completed", "\n".join(watch.log(job))
        assert watch.globals(job) == reference.weights


def _until_it_collects(chaos: Chaos) -> str:
    """A job in the middle of its first round of training."""
    job = str(chaos.site.launch(chaos.spec("to be saved"))["id"])
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        state = chaos.watch.state(job)
        if state.number == 1 and state.round is RoundPhase.COLLECTING:
            return job
        time.sleep(0.01)
    pytest.fail("the job never collected")


def _elsewhere(first: Stack, folder: Path) -> Path:
    """Another folder with the same addresses and secrets, and the devices as they are by now."""
    place = folder / "again"
    place.mkdir()
    shutil.copy(first.folder / "stack.json", place / "stack.json")
    shutil.copytree(first.folder / "devices", place / "devices")
    return place

"""A site with two devices, what may happen to it, and the bits that its jobs end with all the same.

Every job is compared with one that nothing disturbed. A site serves all tests of one file.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.chaos import outcomes, victims
from benchmarks.chaos.disturbed_jobs import Chaos, JobOutcome, Kill, start
from benchmarks.chaos.job_database import JobDatabase
from benchmarks.chaos.strikes import Schedule, draw
from fedcore.rounds.types import RoundPhase
from workers.stack.stack import Stack

JOB_LIMIT_S = 300.0
ROUNDS = 2
# Longer than a process waits for the database, so that requests and decisions really fail.
AWAY_S, PATIENCE_S = 6.0, 2.0


# The undisturbed job of this process's first site: every later one must end with the same bits.
_references: list[JobOutcome] = []


@dataclass
class FaultSite:
    chaos: Chaos
    reference: JobOutcome

    def during(self, moment: RoundPhase, trouble: Callable[[], None]) -> None:
        """A job of one round; there is trouble in its ``moment``, its bits are the same."""
        job = self.launch_until(moment, rounds=1)
        trouble()
        self.assert_same_bits(job, self.chaos.watch)

    def launch_until(self, moment: RoundPhase, rounds: int = ROUNDS) -> str:
        """A job whose first round of training has come to ``moment``."""
        spec = replace(self.chaos, rounds=rounds).spec(f"trouble {moment.value}")
        job = str(self.chaos.site.launch(spec)["id"])
        deadline = time.monotonic() + JOB_LIMIT_S
        while not self._has_reached(job, moment):
            assert time.monotonic() < deadline, "the job never came there"
            time.sleep(0.003)
        return job

    def _has_reached(self, job: str, moment: RoundPhase) -> bool:
        state = self.chaos.watch.state(job)
        return state.number == 1 and state.round is moment

    def assert_same_bits(self, job: str, watch: JobDatabase) -> None:
        """The job completes with the weights of the undisturbed one's first rounds."""
        deadline = time.monotonic() + JOB_LIMIT_S
        while not watch.state(job).is_over and time.monotonic() < deadline:
            time.sleep(0.1)
        assert watch.state(job).job.value == "completed", "\n".join(watch.log(job))
        weights = watch.globals(job)
        assert weights == self.reference.weights[: len(weights)]
        assert len(weights) > 1

    def kill_processes(self, kills: int, seed: int) -> list[Kill]:
        """Jobs whose processes are killed in drawn states, until all kills were carried out."""
        targets = victims.targets(self.chaos.stack)
        schedule = Schedule(draw(seed, kills, targets))
        jobs: list[JobOutcome] = []
        while schedule.strikes and not outcomes.faults(self.reference, jobs):
            self.chaos.settle()
            jobs.append(self.chaos.run(f"chaos {len(jobs) + 1}", schedule))
        print(outcomes.table(targets, self.reference, jobs))
        assert outcomes.faults(self.reference, jobs) == []
        self.chaos.settle()
        return [kill for job in jobs for kill in job.kills]

    def restore_elsewhere(self, folder: Path, servers: Mapping[str, str]) -> None:
        """A backup in mid-round; the site stops, and its copy on ``servers`` ends the job."""
        first = self.chaos.stack
        job = self.launch_until(RoundPhase.COLLECTING)
        first.manage("backup", str(folder / "backup"))
        first.stop()
        again = Stack(_copy_of_devices(first, folder / "again"), servers, web_port=0)
        try:
            assert "the site of" in again.manage("restore", str(folder / "backup"))
            again.start()
            for device in self.chaos.devices:
                again.start_agent(device)
            self.assert_same_bits(job, JobDatabase(again.env["DATABASE_URL"]))
        finally:
            again.stop()


@contextmanager
def started(folder: Path, servers: Mapping[str, str]) -> Iterator[FaultSite]:
    """``servers`` names an external database and broker; the site starts the rest."""
    with ExitStack() as closing:
        patience = {"EDGEWISE_DATABASE_TIMEOUT_S": f"{PATIENCE_S:g}"}
        stack = Stack(folder, {**servers, **patience}, web_port=0)
        closing.callback(stack.stop)
        chaos = start(stack, devices=2, rounds=ROUNDS, job_limit_s=JOB_LIMIT_S)
        if not _references:
            _references.append(chaos.run("undisturbed", Schedule([])))
        reference = _references[0]
        assert not reference.problem
        yield FaultSite(chaos, reference)


def _copy_of_devices(first: Stack, place: Path) -> Path:
    """A folder with the same addresses and secrets, and the devices as they are by now."""
    place.mkdir()
    shutil.copy(first.folder / "stack.json", place / "stack.json")
    shutil.copytree(first.folder / "devices", place / "devices")
    return place

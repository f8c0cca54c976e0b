"""Run jobs on a real site, one after the other, while its processes are killed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos import victims
from benchmarks.chaos.job_database import JobDatabase, State
from benchmarks.chaos.strikes import Schedule, Strike
from workers.demo.scenario import FLEET, write_dialogues
from workers.stack.processes import StartError
from workers.stack.site import Site, make_token
from workers.stack.stack import Stack

ONLINE_WITHIN_S = 120.0
LOOK_S = 0.003

# A small job reaches each state often. One thread, fp32 and deterministic make bits comparable.
# All devices take part in every round, and the server optimizer has a state that must survive.
SPEC: dict[str, Any] = {
    "model": {"name": "nano"},
    "adapter": {"rank": 2, "dropout": 0.1},
    "data": {"max_validation_examples": 2, "max_source_tokens": 64, "max_target_tokens": 8},
    "train": {"local_steps": 2, "batch_size": 2, "learning_rate": 3e-3, "precision": "fp32"},
    "strategy": {"name": "fedadam", "server_learning_rate": 0.01},
    "seed": 11,
    "threads": 1,
    "deterministic": True,
}
PARTICIPATION = {"quorum": 1.0, "deadline_s": 600.0, "lease_s": 5.0, "max_attempts": 100}


@dataclass(frozen=True)
class Kill:
    """An executed strike. ``moved_s``: seconds until the round continued; None: not observed."""

    strike: Strike
    number: int
    moved_s: float | None = None


@dataclass(frozen=True)
class JobOutcome:
    """One job. ``weights``: SHA-256 of each round's model; ``problem``: '' if it completed."""

    seconds: float
    weights: list[tuple[int, str]]
    kills: list[Kill] = field(default_factory=list)
    problem: str = ""


@dataclass
class Chaos:
    """A started site with its devices."""

    stack: Stack
    site: Site
    watch: JobDatabase
    devices: Sequence[str]
    rounds: int
    job_limit_s: float
    say: Callable[[str], None] = print

    def run(self, name: str, schedule: Schedule) -> JobOutcome:
        """Run one job to its end and execute the schedule's strikes for its states."""
        job = str(self.site.launch(self.spec(name))["id"])
        began = time.monotonic()
        kills: list[Kill] = []
        open_: list[tuple[int, State, float]] = []
        while True:
            state = self.watch.state(job)
            now = time.monotonic()
            for index, seen, at in [item for item in open_ if item[1] != state]:
                kills[index] = Kill(kills[index].strike, kills[index].number, now - at)
                open_.remove((index, seen, at))
            if state.is_over or now - began > self.job_limit_s:
                break
            strike = schedule.take((job, state), state.moment)
            if strike is not None:
                at = self._carry_out(job, state, strike, schedule)
                if at:
                    kills.append(Kill(strike, state.number))
                    open_.append((len(kills) - 1, state, at))
            time.sleep(LOOK_S)
        seconds = time.monotonic() - began
        problem = ""
        if state.job.value != "completed":
            log = "\n".join(self.watch.log(job)[-30:])
            problem = f"the job is {state.job.value}, round {state.number} {state.round}:\n{log}"
        return JobOutcome(seconds, self.watch.globals(job), kills, problem)

    def spec(self, name: str) -> Mapping[str, Any]:
        participation = {**PARTICIPATION, "minimum": len(self.devices)}
        return {**SPEC, "name": name, "rounds": self.rounds, "participation": participation}

    def _carry_out(self, job: str, state: State, strike: Strike, schedule: Schedule) -> float:
        """Time of the strike; 0 if its moment has passed or its target is not running."""
        time.sleep(strike.wait_s)
        if self.watch.state(job) != state:
            schedule.put_back(strike)
            return 0.0
        at = time.monotonic()
        names = victims.kill(self.stack, strike.target, self.devices, strike.pick)
        if names is None:
            schedule.put_back(strike)
            return 0.0
        self.say(f"  round {max(state.number, 0)} {strike.moment.value}: {strike.target} killed")
        time.sleep(strike.down_s)
        victims.start_again(self.stack, names)
        return at

    def settle(self) -> None:
        """Wait until the site is up and all devices are online."""
        self.stack.wait_until_up()
        deadline = time.monotonic() + ONLINE_WITHIN_S
        while time.monotonic() < deadline:
            if self.site.online_devices() >= len(self.devices):
                return
            time.sleep(0.2)
        raise StartError(f"not all devices came back within {ONLINE_WITHIN_S:.0f} s")


def start(stack: Stack, devices: int, rounds: int, job_limit_s: float) -> Chaos:
    """Start a site and its devices; the caller stops the stack."""
    stack.start()
    password = secrets.token_urlsafe(12)
    stack.manage("ensure_admin", EDGEWISE_ADMIN_PASSWORD=password)
    site = Site(stack.url, make_token(stack.url, "admin", password, "chaos"))
    fleet = FLEET[:devices]
    for device in fleet:
        path = write_dialogues(device, stack.folder / "devices" / device.name / "data")
        datasets = {device.domain: f"{path}:dialogue,summary,{device.domain}"}
        stack.enrol_agent(device.name, site.enrolment_token(device.name), datasets)
        stack.start_agent(device.name)
    watch = JobDatabase(stack.env["DATABASE_URL"])
    chaos = Chaos(stack, site, watch, [device.name for device in fleet], rounds, job_limit_s)
    chaos.settle()
    return chaos

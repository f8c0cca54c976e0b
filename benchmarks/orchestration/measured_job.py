"""One job of the benchmark: launched, waited for, and taken apart."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from benchmarks.chaos.job_database import JobDatabase
from benchmarks.orchestration import meters
from benchmarks.orchestration.echo_site import EchoSite
from benchmarks.orchestration.payloads import Payload
from workers.stack.processes import StartError

WARM_UP = 2
LIMIT_S = 1800.0
LOOK_S = 0.2
# Moments of a round, in order; each step is the time since the one before it.
STEPS = ("offered", "accepted", "reported", "collected", "aggregated", "ended")


@dataclass(frozen=True)
class RoundTimings:
    """One job. Seconds per round are from end to end of the rounds after the warm-up.

    Bytes are one device's in one round, as counted at its socket (median). ``server_peak_bytes``
    is the sum of all server processes' peaks above what they had before the job. ``cpu_s`` are each
    process' seconds of CPU per round, of all rounds; all agents count as one.
    """

    payload: str
    devices: int
    round_s: list[float]
    model_bytes: int
    bytes_up: float
    bytes_down: float
    server_idle_bytes: dict[str, int]
    server_peak_bytes: dict[str, int]
    agent_peak_bytes: int
    steps_s: dict[str, float]
    cpu_s: dict[str, float]

    @property
    def median_s(self) -> float:
        return statistics.median(self.round_s)

    @property
    def above_idle_bytes(self) -> int:
        idle = self.server_idle_bytes
        return sum(peak - idle.get(name, 0) for name, peak in self.server_peak_bytes.items())

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "median_s": self.median_s, "above_idle": self.above_idle_bytes}


def spec_of(name: str, payload: Payload, model: str, args: argparse.Namespace) -> dict[str, Any]:
    """The job: all devices in every round, and no evaluation but the last unless asked for."""
    spec: dict[str, Any] = {
        "name": f"bench {name}",
        "model": {"name": model},
        "adapter": payload.adapter,
        "rounds": args.rounds,
        "evaluation": {"every": 1 if args.evaluate else 0, "initial": False},
        "wire": {"uplink": "fp32", "downlink": "fp32"},
        "participation": {"minimum": args.devices[-1], "quorum": 1.0, "deadline_s": 600.0},
    }
    for text in args.set:
        path, _, value = text.partition("=")
        *groups, last = path.split(".")
        place = spec
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = json.loads(value)
    return spec


def run_job(bench: EchoSite, name: str, spec: dict[str, Any]) -> RoundTimings:
    """Run a job to its end. Raises StartError with its log where it does not complete."""
    spec = {**spec, "participation": {**spec["participation"], "minimum": bench.devices}}
    server, agents = bench.server_pids(), bench.agent_pids()
    meters.forget_peaks(server | agents)
    idle = meters.resident_bytes(server)
    cpu_before = meters.cpu_seconds(server | agents)
    job = bench.site.launch(spec)
    _wait_until_over(bench, job["id"])
    cpu_after = meters.cpu_seconds(server | agents)
    server_peaks = meters.resident_bytes(server, "VmHWM")
    agent_peaks = meters.resident_bytes(agents, "VmHWM")
    ended = bench.site.job(job["id"])
    if ended["phase"] != "completed":
        log = [event["text"] for event in bench.site.events_after(job["id"], 0)]
        raise StartError("\n".join([f"the job {ended['phase']}: {ended['reason']}", *log[-20:]]))
    rounds = list(bench.site.all_rows("/rounds/", job=job["id"], ordering="number"))
    parts = list(bench.site.all_rows("/assignments/", job=job["id"], task="train"))
    counted = [row for row in rounds if row["number"] > WARM_UP]
    ends = [_at(row["ended_at"]) for row in rounds if row["number"] >= WARM_UP]
    numbers = {row["number"] for row in counted}
    mine = [part for part in parts if part["round_number"] in numbers]
    used = {part: seconds - cpu_before.get(part, 0.0) for part, seconds in cpu_after.items()}
    cpu_per_round = {part: seconds / len(rounds) for part, seconds in used.items()}
    return RoundTimings(
        name,
        bench.devices,
        [later - sooner for sooner, later in pairwise(ends)],
        int(ended["model_info"]["payload_bytes"]),
        statistics.median(part["bytes_up"] for part in mine),
        statistics.median(part["bytes_down"] for part in mine),
        idle,
        server_peaks,
        max(agent_peaks.values(), default=0),
        _steps(counted, mine),
        meters.by_part(cpu_per_round),
    )


def _wait_until_over(bench: EchoSite, job: str) -> None:
    """By the database, since answers of the web process would count as work for the job."""
    watch = JobDatabase(bench.stack.env["DATABASE_URL"])
    deadline = time.monotonic() + LIMIT_S
    while not watch.state(job).is_over:
        if time.monotonic() > deadline:
            raise StartError(f"the job is not over after {LIMIT_S:.0f} s: {watch.state(job)}")
        time.sleep(LOOK_S)


def _steps(rounds: list[dict[str, Any]], parts: list[dict[str, Any]]) -> dict[str, float]:
    """Median seconds of each step: the last device's moments count, as a round waits for it."""
    delays: dict[str, list[float]] = {step: [] for step in STEPS}
    for row in rounds:
        mine = [part for part in parts if part["round_number"] == row["number"]]
        moments = {
            "offered": max(_at(part["sent_at"] or part["offered_at"]) for part in mine),
            "accepted": max(_at(part["accepted_at"]) for part in mine),
            "reported": max(_at(part["ended_at"]) for part in mine),
            "collected": _at(row["collected_at"]),
            "aggregated": _at(row["aggregated_at"]),
            "ended": _at(row["ended_at"]),
        }
        before = _at(row["started_at"])
        for step in STEPS:
            delays[step].append(moments[step] - before)
            before = moments[step]
    return {step: statistics.median(values) for step, values in delays.items() if values}


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()

"""``python -m benchmarks chaos``: kill processes of a site at random moments, compare the bits."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.chaos import outcomes, victims
from benchmarks.chaos.disturbed_jobs import Chaos, JobOutcome, start
from benchmarks.chaos.strikes import Schedule, draw
from workers.stack.stack import Stack


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every job ends with the bits of the undisturbed one, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=45, help="processes to kill (45)")
    parser.add_argument("--seed", type=int, default=0, help="seed of targets and moments (0)")
    parser.add_argument("--devices", type=int, default=3, choices=(1, 2, 3))
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each job (2)")
    parser.add_argument("--job-limit", type=float, default=300.0, help="seconds a job may take")
    parser.add_argument("--folder", type=Path, help="folder for the site's files and logs")
    parser.add_argument("--database-url", default="", help="replaces SQLite")
    parser.add_argument("--redis-url", default="", help="replaces the site's own broker")
    options = parser.parse_args(arguments)
    servers = {"DATABASE_URL": options.database_url, "REDIS_URL": options.redis_url}
    with ExitStack() as closing:
        folder = options.folder or Path(closing.enter_context(tempfile.TemporaryDirectory()))
        stack = Stack(folder, {key: url for key, url in servers.items() if url}, web_port=0)
        closing.callback(stack.stop)
        print(f"starting a site with {options.devices} devices in {folder}", flush=True)
        chaos = start(stack, options.devices, options.rounds, options.job_limit)
        return compare(chaos, options.kills, options.seed)


def compare(chaos: Chaos, kills: int, seed: int) -> int:
    """Run one undisturbed job, then as many as the kills need, and print the table."""
    began = time.monotonic()
    targets = victims.targets(chaos.stack)
    schedule = Schedule(draw(seed, kills, targets))
    reference = chaos.run("undisturbed", Schedule([]))
    if reference.problem:
        print(f"the undisturbed job: {reference.problem}")
        return 1
    print(f"undisturbed: {reference.seconds:.1f} s, ends with {reference.weights[-1][1]}")
    jobs: list[JobOutcome] = []
    while schedule.strikes and not outcomes.faults(reference, jobs):
        chaos.settle()
        print(f"job {len(jobs) + 1}, {len(schedule.strikes)} kills to go", flush=True)
        jobs.append(chaos.run(f"chaos {len(jobs) + 1}", schedule))
    print(f"\n{outcomes.table(targets, reference, jobs)}")
    print(f"seed {seed}, {time.monotonic() - began:.0f} s in all")
    faults = outcomes.faults(reference, jobs)
    for fault in faults:
        print(f"DIFFERENT: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

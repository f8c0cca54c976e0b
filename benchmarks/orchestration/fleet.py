"""``python -m benchmarks fleet --devices 1000``: what idle lines cost, and a round among them.

All devices are virtual, in one process with an open line each. The site's processes are measured
twice from /proc: before the first line, and at rest with all lines open. Then one job trains on a
part of the devices. TEST_DATABASE_URL names a PostgreSQL server; without it the site uses SQLite.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.orchestration import meters
from benchmarks.orchestration.databases import backend_pids, site_database
from benchmarks.orchestration.echo_site import (
    EchoSite,
    empty_site,
    enrol_virtual,
    start_virtual,
    wait_until_connected,
)
from benchmarks.orchestration.measured_job import RoundTimings, run_job, spec_of
from benchmarks.orchestration.payloads import PAYLOADS, model_name

SETTLE_S = 5.0
DATABASE = "database"


@dataclass(frozen=True)
class FleetFigures:
    """``idle_cpu``: share of a core by process. ``above_empty_bytes``: resident, by process."""

    devices: int
    web: int
    database: str
    connect_s: float
    idle_cpu: dict[str, float]
    above_empty_bytes: dict[str, int]
    job: RoundTimings

    @property
    def server_cpu(self) -> float:
        return sum(share for name, share in self.idle_cpu.items() if name != meters.AGENTS)

    @property
    def server_bytes(self) -> int:
        return sum(count for name, count in self.above_empty_bytes.items() if name != meters.AGENTS)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "job": self.job.to_dict()}


def parser() -> argparse.ArgumentParser:
    top_parser = argparse.ArgumentParser(prog="python -m benchmarks fleet", description=__doc__)
    top_parser.add_argument("--devices", nargs="+", type=int, default=[100, 1000])
    top_parser.add_argument("--web", type=int, default=1, help="web processes (1)")
    top_parser.add_argument("--idle-s", type=float, default=60.0, help="seconds at rest (60)")
    top_parser.add_argument("--share", type=float, default=0.1, help="of the devices, in the job")
    top_parser.add_argument("--rounds", type=int, default=5, help="of the job; two warm up")
    top_parser.add_argument("--payload", choices=PAYLOADS, default="tiny")
    top_parser.add_argument("--json", type=Path, help="write all figures to this file")
    top_parser.add_argument("--folder", type=Path, help="keep logs and data here")
    top_parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgewise-bench")
    top_parser.set_defaults(evaluate=False, set=[])
    return top_parser


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    args.cache.mkdir(parents=True, exist_ok=True)
    figures: list[FleetFigures] = []
    for devices in args.devices:
        with ExitStack() as closing:
            folder = args.folder or Path(closing.enter_context(tempfile.TemporaryDirectory()))
            env = closing.enter_context(site_database())
            site_folder = folder / f"{devices}-lines"
            bench = closing.enter_context(empty_site(site_folder, args.web, env))
            figures.append(measure(bench, devices, args))
            print(table(figures[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps([item.to_dict() for item in figures], indent=1) + "\n")
    return 0


def measure(bench: EchoSite, devices: int, args: argparse.Namespace) -> FleetFigures:
    url = bench.stack.env["DATABASE_URL"]
    enrol_virtual(bench.stack, devices)
    time.sleep(SETTLE_S)
    empty = meters.by_part(meters.resident_bytes(_pids(bench, url)))
    began = time.monotonic()
    start_virtual(bench.stack)
    wait_until_connected(bench.stack, devices)
    connect_s = time.monotonic() - began
    time.sleep(SETTLE_S)
    pids = _pids(bench, url)
    before, began = meters.cpu_seconds(pids), time.monotonic()
    time.sleep(args.idle_s)
    used, seconds = meters.cpu_seconds(pids), time.monotonic() - began
    idle_cpu = meters.by_part({name: (used[name] - before[name]) / seconds for name in pids})
    resident = meters.by_part(meters.resident_bytes(pids))
    above = {name: int(count - empty.get(name, 0)) for name, count in resident.items()}
    payload = PAYLOADS[args.payload]
    spec = spec_of(args.payload, payload, model_name(payload, args.cache), args)
    spec["participation"] |= {"fraction": args.share}
    members = max(1, int(devices * args.share))
    job = run_job(replace(bench, devices=members), args.payload, spec)
    database = url.partition(":")[0]
    return FleetFigures(devices, args.web, database, connect_s, idle_cpu, above, job)


def _pids(bench: EchoSite, url: str) -> dict[str, int]:
    return bench.server_pids() | bench.agent_pids() | backend_pids(url)


def table(figures: FleetFigures) -> str:
    job = figures.job
    lines = [
        f"\n{figures.devices} lines, {figures.web} web processes, {figures.database}; "
        f"open after {figures.connect_s:.1f} s",
        "\n| process | CPU at rest, % of a core | MB above empty | CPU s a round |",
        "| --- | --- | --- | --- |",
    ]
    for name in sorted(figures.idle_cpu, key=lambda name: (name == meters.AGENTS, name)):
        memory = figures.above_empty_bytes[name] / 1e6
        shown = f"{100 * figures.idle_cpu[name]:.2f} | {memory:.1f}"
        lines.append(f"| {name} | {shown} | {job.cpu_s.get(name, 0.0):.3f} |")
    server_s = sum(seconds for name, seconds in job.cpu_s.items() if name != meters.AGENTS)
    total = f"{100 * figures.server_cpu:.2f} | {figures.server_bytes / 1e6:.1f} | {server_s:.3f}"
    lines.append(f"| all but the agents | {total} |")
    lines.append(
        f"\nA round of {job.devices} devices ({job.payload}): {job.median_s:.3f} s (median of "
        f"{len(job.round_s)}), {1000 * server_s / job.devices:.1f} ms of server CPU a device"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

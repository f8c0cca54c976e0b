"""``python -m benchmarks round --payload lora --devices 8``: a round without its training.

Every part is real and a process of its own: broker, uvicorn, coordinator, aggregation worker,
agents. Only the trainer inside the agents answers at once. ``python -m benchmarks round`` is the
same command.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.orchestration import tables
from benchmarks.orchestration.echo_site import echoing_site
from benchmarks.orchestration.measured_job import WARM_UP, RoundTimings, run_job, spec_of
from benchmarks.orchestration.payloads import PAYLOADS, model_name
from benchmarks.peers import PEERS, is_there, round_seconds


def parser() -> argparse.ArgumentParser:
    top_parser = argparse.ArgumentParser(prog="python -m benchmarks round", description=__doc__)
    top_parser.add_argument(
        "--payload", nargs="+", choices=PAYLOADS, default=["tiny", "lora", "full"]
    )
    top_parser.add_argument("--devices", nargs="+", type=int, default=[2, 8])
    top_parser.add_argument("--virtual", action="store_true", help="all devices in one process")
    top_parser.add_argument("--web", type=int, default=1, help="web processes (1)")
    top_parser.add_argument(
        "--rounds", type=int, default=12, help="of each job; the first two warm up"
    )
    top_parser.add_argument(
        "--peer",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "PYTHON"),
        help=f"also {', '.join(PEERS)} by this interpreter, for the ratio",
    )
    top_parser.add_argument(
        "--evaluate", action="store_true", help="also have each model evaluated"
    )
    top_parser.add_argument("--set", action="append", default=[], metavar="PATH=JSON")
    top_parser.add_argument("--steps", action="store_true", help="show where a round's time goes")
    top_parser.add_argument("--json", type=Path, help="write all figures to this file")
    top_parser.add_argument("--folder", type=Path, help="keep logs and data here")
    top_parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgewise-bench")
    return top_parser


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    args.cache.mkdir(parents=True, exist_ok=True)
    timings: list[RoundTimings] = []
    print(tables.HEAD, flush=True)
    for devices in args.devices:
        with tempfile.TemporaryDirectory(prefix="edgewise-bench-") as temporary:
            folder = (args.folder or Path(temporary)) / f"{devices}-devices"
            with echoing_site(folder, devices, args.virtual, args.web) as bench:
                for name in args.payload:
                    payload = PAYLOADS[name]
                    spec = spec_of(name, payload, model_name(payload, args.cache), args)
                    figures = run_job(bench, name, spec)
                    timings.append(figures)
                    print(tables.row(figures), flush=True)
                    if args.steps:
                        print(tables.steps(figures), flush=True)
    print(tables.memory(timings))
    for name, python in args.peer:
        # The same bytes and devices through another system, one job after the other.
        if name not in PEERS or not is_there(Path(python), name):
            known = ", ".join(PEERS)
            print(f"{name} is not installed for {python}; known: {known}", file=sys.stderr)
            continue
        for ours in timings:
            floats = ours.model_bytes // 4
            with tempfile.TemporaryDirectory(prefix="edgewise-bench-") as temporary:
                system = PEERS[name]
                moments = system(Path(python), Path(temporary), floats, ours.devices, args.rounds)
            print(tables.peer_row(name, ours, round_seconds(moments, WARM_UP)), flush=True)
    if args.json:
        args.json.write_text(json.dumps([item.to_dict() for item in timings], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

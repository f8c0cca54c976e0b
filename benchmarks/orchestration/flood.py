"""``python -m benchmarks flood``: rounds of three devices, with and without a fourth that floods.

In turn: a time without, and one with the flood (``benchmarks.orchestration.flooder``: frames at
full speed, malformed ones, new lines again and again). Jobs run one after the other in each. The
figure of a turn is the median of its rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.orchestration.echo_site import EchoSite, echoing_site
from benchmarks.orchestration.measured_job import run_job, spec_of
from benchmarks.orchestration.payloads import PAYLOADS
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.http.server_clock import Clock
from workers.agent.state.credentials import from_enrolment

DEVICES = 3
PARTS = 3  # of a flood
FLOODER = "flooder"


def parser() -> argparse.ArgumentParser:
    top_parser = argparse.ArgumentParser(prog="python -m benchmarks flood", description=__doc__)
    top_parser.add_argument("--turns", type=int, default=20, help="of each kind (20)")
    top_parser.add_argument("--seconds", type=float, default=60.0, help="of each turn (60)")
    top_parser.add_argument("--rounds", type=int, default=12, help="of each job; two warm up")
    top_parser.add_argument("--virtual", action="store_true", help="the three in one process")
    top_parser.add_argument("--json", type=Path, help="write all figures to this file")
    top_parser.add_argument("--folder", type=Path, help="keep logs and data here")
    top_parser.set_defaults(devices=[DEVICES], evaluate=False, set=[])
    return top_parser


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    quiet: list[float] = []
    flooded: list[float] = []
    counts: Counter[str] = Counter()
    with ExitStack() as closing:
        folder = args.folder or Path(closing.enter_context(tempfile.TemporaryDirectory()))
        bench = closing.enter_context(echoing_site(folder / "site", DEVICES, args.virtual))
        credential = _enrol(bench, folder)
        for turn in range(1, args.turns + 1):
            quiet.append(_median_round(bench, args))
            with _flood(bench, credential, args.seconds / PARTS, counts):
                flooded.append(_median_round(bench, args))
            print(f"turn {turn}: {quiet[-1]:.3f} s, flooded {flooded[-1]:.3f} s", flush=True)
    without, with_flood = statistics.median(quiet), statistics.median(flooded)
    print(f"the flood: {', '.join(f'{count} {name}' for name, count in sorted(counts.items()))}")
    print(f"median of {args.turns} turns, s a round: {without:.3f} without, {with_flood:.3f} with")
    print(f"ratio {with_flood / without:.2f}")
    if args.json:
        values = {"quiet_s": quiet, "flooded_s": flooded, "counts": counts}
        args.json.write_text(json.dumps(values, indent=1) + "\n")
    return 0


def _median_round(bench: EchoSite, args: argparse.Namespace) -> float:
    """Jobs until the turn is over; seconds a round."""
    payload, rounds_s = PAYLOADS["tiny"], list[float]()
    until = time.monotonic() + args.seconds
    while not rounds_s or time.monotonic() < until:
        spec: dict[str, Any] = spec_of("flood", payload, "nano", args)
        rounds_s += run_job(bench, "tiny", spec).round_s
    return statistics.median(rounds_s)


def _enrol(bench: EchoSite, folder: Path) -> Path:
    """The flooder's credential. It has no data, so that no job waits for its work."""
    body: dict[str, Any] = {"token": bench.site.enrolment_token(FLOODER), "name": FLOODER}
    body |= {"agent_version": "bench", "profile": {}, "datasets": []}
    server = ServerApi(Address(bench.stack.url))
    credential = from_enrolment(bench.stack.url, server.enrol(body), Clock().iso())
    server.close()
    path = folder / f"{FLOODER}.json"
    path.write_text(json.dumps(asdict(credential)))
    return path


@contextmanager
def _flood(
    bench: EchoSite, credential: Path, part_s: float, counts: Counter[str]
) -> Iterator[None]:
    """The flood while the block runs; what it did is added to ``counts``."""
    command = [sys.executable, "-m", "benchmarks.orchestration.flooder", str(credential)]
    processes = bench.stack.processes
    processes.start(FLOODER, [*command, f"{part_s:g}"], bench.stack.agent_env(FLOODER))
    try:
        yield
        processes.check(FLOODER)
    finally:
        processes.stop(FLOODER)
    counts.update(json.loads(Path(f"{credential}.counts").read_text()))


if __name__ == "__main__":
    sys.exit(main())

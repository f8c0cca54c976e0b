"""``python -m fedcore.plan``: what a job would cost on a fleet, before anything is started."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedcore.architecture.sizes import KNOWN, architecture_of
from fedcore.errors import Fault, SpecError
from fedcore.plan.fleet_file import read_fleet, read_table
from fedcore.plan.planner import FleetPlan, plan_fleet
from fedcore.plan.report import as_text, fleet_values
from fedcore.spec.overrides import Member, stranger_faults
from fedcore.spec.parse import parse_spec

STDOUT, STDERR = 1, 2


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m fedcore.plan", description=__doc__)
    made.add_argument("--model", default="", help="a name or a folder; wins over the job's own")
    made.add_argument("--devices", required=True, metavar="FLEET.toml", help="[[device]] tables")
    made.add_argument("--spec", metavar="JOB.toml", help="a job's options, as TOML or JSON")
    made.add_argument("--json", action="store_true", help="every figure as JSON")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        with native_output_to_stderr():
            plan = planned(args.devices, args.spec, args.model)
    except SpecError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return 2
    print(json.dumps(fleet_values(plan), indent=2) if args.json else as_text(plan))
    return 0


@contextlib.contextmanager
def native_output_to_stderr() -> Iterator[None]:
    """What libraries print past Python goes to stderr meanwhile: stdout may be read as JSON.

    HiGHS prints a line of its own about some integer programmes, whatever its options say. Of the
    whole process, so for commands alone; in a web process the line goes to its log.
    """
    sys.stdout.flush()
    kept = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C has written and not sent yet
        os.dup2(kept, STDOUT)
        os.close(kept)


def planned(devices: str, job: str | None, model: str) -> FleetPlan:
    """The plan of the two files. Raises SpecError with every fault of one of them."""
    values = read_table(Path(job)) if job else {}
    if model and isinstance(values.get("model", {}), dict):
        values["model"] = {**values.get("model", {}), "name": model}
    spec = parse_spec(values)
    sizes = architecture_of(spec.model.name)
    if sizes is None:
        known = ", ".join(("nano", *KNOWN))
        message = f"the sizes of {spec.model.name!r} are not known; give {known}, or a folder"
        raise SpecError([Fault("model.name", message)])
    fleet = read_fleet(Path(devices), spec)
    members = [Member(0, device.name, device.hardware.board) for device in fleet]
    if faults := stranger_faults(spec, members):
        raise SpecError(faults)
    return plan_fleet(spec, sizes, fleet)


if __name__ == "__main__":
    sys.exit(main())

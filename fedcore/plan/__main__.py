"""``python -m fedcore.plan``: estimate what a job costs on a fleet before its launch."""

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
    cli = argparse.ArgumentParser(prog="python -m fedcore.plan", description=__doc__)
    cli.add_argument("--model", default="", help="name or folder; overrides the job's model")
    cli.add_argument("--devices", required=True, metavar="FLEET.toml", help="[[device]] tables")
    cli.add_argument("--spec", metavar="JOB.toml", help="job options as TOML or JSON")
    cli.add_argument("--json", action="store_true", help="print every figure as JSON")
    return cli


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        with native_output_to_stderr():
            plan = plan_from_files(args.devices, args.spec, args.model)
    except SpecError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return 2
    print(json.dumps(fleet_values(plan), indent=2) if args.json else as_text(plan))
    return 0


@contextlib.contextmanager
def native_output_to_stderr() -> Iterator[None]:
    """Redirect what native libraries print to stderr, since stdout may be read as JSON.

    HiGHS prints a line about some integer programmes, whatever its options. The redirection affects
    the whole process, so only commands may use it.
    """
    sys.stdout.flush()
    stdout_copy = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # flush C's own buffers
        os.dup2(stdout_copy, STDOUT)
        os.close(stdout_copy)


def plan_from_files(devices: str, job: str | None, model: str) -> FleetPlan:
    """The plan of a fleet file and a job file. Raises SpecError with every error of a file."""
    values = read_table(Path(job)) if job else {}
    if model and isinstance(values.get("model", {}), dict):
        values["model"] = {**values.get("model", {}), "name": model}
    spec = parse_spec(values)
    sizes = architecture_of(spec.model.name)
    if sizes is None:
        known = ", ".join(("nano", *KNOWN))
        message = f"the sizes of {spec.model.name!r} are not known; give {known} or a folder"
        raise SpecError([Fault("model.name", message)])
    fleet = read_fleet(Path(devices), spec)
    members = [Member(0, device.name, device.hardware.board) for device in fleet]
    if faults := stranger_faults(spec, members):
        raise SpecError(faults)
    return plan_fleet(spec, sizes, fleet)


if __name__ == "__main__":
    sys.exit(main())

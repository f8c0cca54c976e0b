"""Rounds over the real stack with training switched off.

Brokers, web server, coordinator, aggregation worker and agents are separate processes. This command
runs ``benchmarks.orchestration`` as a program.
"""

from __future__ import annotations

import argparse
import subprocess
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "All options are those of python -m benchmarks.orchestration; see its --help."


def run(args: argparse.Namespace) -> int:
    return subprocess.call([sys.executable, "-m", "benchmarks.orchestration", *args.rest])

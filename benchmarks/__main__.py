"""``python -m benchmarks NAME``: measurements as commands.

Each sub-command is a module of this package with ``add_arguments(parser)`` and ``run(args)``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

# Module name -> what it measures.
COMMANDS = {
    "asynchronous": "time to quality of synchronous and asynchronous rounds on a mixed fleet",
    "fold": "GB/s of folding large updates, compared with a memory copy and plain loops",
    "identical_results": "SHA-256 of short simulations, compared with another version's table",
    "lowrank": "FlexLoRA by thin factors, compared with the SVD of the dense mean",
    "memory": "peak memory of training, FLAN-T5 small to XL, by precision and method",
    "plan": "planner accuracy: predicted and measured step time, memory and transfers",
    "round": "seconds, bytes and memory of rounds on the real stack without training",
    "step": "a local step compared with the plain loop: tokens/s, MFU, phases, memory, losses",
    "upgrade": "kill the version before in mid-job and complete the job with this one",
    "wire": "speed and bytes of the codecs, and their effect on ROUGE",
}

# Commands whose options belong to another program.
PASSED_ON = ("round",)


def parser() -> argparse.ArgumentParser:
    top_parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = top_parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        module = importlib.import_module(f"benchmarks.{name}")
        module.add_arguments(commands.add_parser(name, help=text, description=module.__doc__))
    return top_parser


def main(arguments: Sequence[str] | None = None) -> int:
    args, rest = parser().parse_known_args(arguments)
    if rest and args.command not in PASSED_ON:
        parser().error(f"unknown: {' '.join(rest)}")
    args.rest = rest
    return int(importlib.import_module(f"benchmarks.{args.command}").run(args))


if __name__ == "__main__":
    sys.exit(main())

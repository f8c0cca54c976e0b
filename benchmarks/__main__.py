"""``python -m benchmarks NAME``: measurements as commands, so that anybody can repeat them.

Each sub-command is a module of this package with ``add_arguments(parser)`` and ``run(args)``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

# The name of each module, and what it measures.
COMMANDS = {
    "asynchronous": "time to quality of synchronous and asynchronous rounds, on a mixed fleet",
    "fold": "GB/s of folding large updates on files, beside the machine's limit and plain loops",
    "identical_results": "SHA-256 of short simulations, compared with another version's table",
    "lowrank": "redistributing low-rank adapters by thin factors, beside the SVD of the dense mean",
    "memory": "peak memory of training, FLAN-T5 small to XL, by precision and method",
    "plan": "how right the planner is: predicted against measured step time, memory, transfers",
    "round": "seconds, bytes and memory of rounds over the real stack, with training switched off",
    "step": "a local step beside the plain loop: tokens/s, MFU, phases, memory; or losses of both",
    "upgrade": "kill the version before in mid-job and complete the job with this one",
    "wire": "speed and bytes of the wire codecs, and what they cost in ROUGE",
}

# Their options are another program's.
PASSED_ON = ("round",)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        module = importlib.import_module(f"benchmarks.{name}")
        module.add_arguments(commands.add_parser(name, help=text, description=module.__doc__))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    args, rest = parser().parse_known_args(arguments)
    if rest and args.command not in PASSED_ON:
        parser().error(f"unknown: {' '.join(rest)}")
    args.rest = rest
    return int(importlib.import_module(f"benchmarks.{args.command}").run(args))


if __name__ == "__main__":
    sys.exit(main())

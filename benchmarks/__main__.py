"""``python -m benchmarks NAME``: measurements as commands.

A command is a module of this package with ``add_arguments(parser)`` and ``run(args)``, or a program
of its own, which gets all options as they are.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Sequence

# Module name -> what it measures.
COMMANDS = {
    "asynchronous": "time to quality of synchronous and asynchronous rounds on a mixed fleet",
    "fold": "GB/s of folding large updates, compared with a memory copy and plain loops",
    "identical_results": "SHA-256 of short simulations, compared with another version's table",
    "links": "transfers over emulated links: predicted and measured time",
    "lowrank": "FlexLoRA by thin factors, compared with the SVD of the dense mean",
    "memory": "peak memory of training, FLAN-T5 small to XL, by precision and method",
    "plan": "planner accuracy: predicted and measured step time, memory and transfers",
    "saved_activations": "numbers that autograd saves for the backward pass, by layer widths",
    "step": "a local step compared with the plain loop: tokens/s, MFU, phases, memory, losses",
    "upgrade": "kill the version before in mid-job and complete the job with this one",
    "wire": "speed and bytes of the codecs, and their effect on ROUGE",
}
# Command -> its program, and what it measures. These processes load no tensor library.
PROGRAMS = {
    "chaos": ("benchmarks.chaos", "kill processes of a real site and compare the bits of its jobs"),
    "fleet": (
        "benchmarks.orchestration.fleet",
        "CPU and memory of idle lines, and a round on a part of them",
    ),
    "flood": (
        "benchmarks.orchestration.flood",
        "seconds of a round while another device floods the site",
    ),
    "round": (
        "benchmarks.orchestration",
        "seconds, bytes and memory of rounds on the real stack without training",
    ),
}


def parser() -> argparse.ArgumentParser:
    top_parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = top_parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        module = importlib.import_module(f"benchmarks.{name}")
        module.add_arguments(commands.add_parser(name, help=text, description=module.__doc__))
    for name, (_, text) in PROGRAMS.items():
        commands.add_parser(name, help=text, add_help=False)
    return top_parser


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in PROGRAMS:
        program, _ = PROGRAMS[words[0]]
        return subprocess.call([sys.executable, "-m", program, *words[1:]])
    args = parser().parse_args(words)
    return int(importlib.import_module(f"benchmarks.{args.command}").run(args))


if __name__ == "__main__":
    sys.exit(main())

"""The same payload through other systems on the same machine.

Each system runs in an interpreter of its own (``--peer NAME PYTHON``), because its dependencies
conflict with ours.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.peers.flare import run as run_flare
from benchmarks.peers.flower import run as run_flower

# (interpreter, folder, floats, devices, rounds) to the moments at which rounds ended, in seconds.
Peer = Callable[[Path, Path, int, int, int], list[float]]
PEERS: Mapping[str, Peer] = {"flower": run_flower, "flare": run_flare}


def is_there(python: Path, name: str) -> bool:
    package = {"flower": "flwr", "flare": "nvflare"}[name]
    done = subprocess.run([str(python), "-c", f"import {package}"], capture_output=True)
    return done.returncode == 0


def round_seconds(moments: Sequence[float], warm_up: int) -> list[float]:
    """Seconds of each round after the first ``warm_up``."""
    return [later - sooner for sooner, later in pairwise(moments)][warm_up:]

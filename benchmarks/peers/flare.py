"""NVIDIA FLARE's simulator: its server and clients as processes, a client that trains nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.peers.moments import moments_in

APP = Path(__file__).parent / "flare_app"
LIMIT_S = 3600


def run(python: Path, folder: Path, floats: int, devices: int, rounds: int) -> list[float]:
    """Run the job to its end and return when its rounds ended."""
    app = folder / "app"
    shutil.copytree(APP, app)
    command = [str(python), "flare_job.py", str(floats), str(devices), str(rounds)]
    env = {**os.environ, "PYTHONPATH": str(app)}
    done = subprocess.run(
        command, cwd=app, env=env, capture_output=True, text=True, timeout=LIMIT_S
    )
    return moments_in(done.stdout, rounds)

"""Flower as it is deployed: a SuperLink, a SuperNode per device, an app that trains nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.peers.moments import moments_in
from workers.stack.processes import Processes, free_port, wait_for_port

APP = Path(__file__).parent / "flower_app"
LIMIT_S = 3600
PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "echo"
version = "0.1.0"
description = "an app that trains nothing"
license = "Apache-2.0"
dependencies = []
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "flower_app.server:app"
clientapp = "flower_app.client:app"
[tool.flwr.app.config]
rounds = {rounds}
devices = {devices}
floats = {floats}
"""
LINK = '[superlink]\ndefault = "local"\n[superlink.local]\naddress = "{}"\ninsecure = true\n'


def run(python: Path, folder: Path, floats: int, devices: int, rounds: int) -> list[float]:
    """Start all of it, run the app to its end, and return when its rounds ended."""
    commands, home = python.parent, folder / "home"
    port = free_port()
    address = f"127.0.0.1:{port}"
    project = PROJECT.format(rounds=rounds, devices=devices, floats=floats)
    home.mkdir(parents=True)
    (home / "config.toml").write_text(LINK.format(address))
    shutil.copytree(APP, folder / "app" / "flower_app")
    (folder / "app" / "pyproject.toml").write_text(project)
    # Its processes start each other by name.
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0"}
    processes = Processes(folder / "log")
    try:
        link = [str(commands / "flower-superlink"), "--insecure", "--host", "127.0.0.1"]
        processes.start("superlink", [*link, "--port", str(port)], env)
        wait_for_port(processes, "superlink", port, 60)
        for number in range(devices):
            node_port, name = free_port(), f"supernode-{number}"
            node = [str(commands / "flower-supernode"), "--insecure", "--superlink", address]
            processes.start(name, [*node, "--port", str(node_port)], env)
            wait_for_port(processes, name, node_port, 60)
        time.sleep(3)  # until they have called the SuperLink; it has no way to ask
        command = [str(commands / "flwr"), "run", str(folder / "app"), "local", "--stream"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT_S)
    finally:
        processes.stop_all()
    return moments_in(done.stdout, rounds)

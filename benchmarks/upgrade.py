"""``python -m benchmarks upgrade``: take over a running job from the version before.

The version before runs the demo's job (seed 7, fp32, one thread, deterministic). After some rounds
all its processes are killed with SIGKILL. This version starts on the same folder, with one agent of
the version before among its three. The job must complete with the SHA-256 of an undisturbed run of
the version before, on this machine: sums differ in their last bits between processors.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.identical_results import DEMO, adapter_digest, demo, single_threaded

OLD_AGENT = "law-office-pc"
# Runs in this version's checkout: the demo, with one agent from the other checkout.
MIXED_DEMO = """
import shlex, sys
from workers.demo import __main__ as demo
from workers.stack.stack import Stack

before, old_agent = sys.argv[1:3]
del sys.argv[1:3]
start_agent = Stack.start_agent

def start_mixed(stack, name):
    if name != old_agent:
        return start_agent(stack, name)
    command = [sys.executable, "-m", "workers.agent", "run", "--server", stack.url]
    script = f"cd {shlex.quote(before)} && exec {shlex.join([*command, '--threads', '1'])}"
    stack.processes.start(f"agent-{name}", ["sh", "-c", script], stack.agent_env(name))

Stack.start_agent = start_mixed
sys.exit(demo.main())
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--before", type=Path, required=True, help="checkout of the version before")
    parser.add_argument("--after-round", type=int, default=3, help="kill once this round closed")
    parser.add_argument("--port", type=int, default=8125, help="tried first for the web site")


def run(options: argparse.Namespace) -> int:
    """Return 0 if the job completes with the bits of an undisturbed run, else 1."""
    with tempfile.TemporaryDirectory(prefix="edgewise-upgrade-") as name:
        folder = Path(name) / "site"
        arguments = ["--folder", str(folder), "--port", str(options.port), "--exit"]
        _run_until_killed(options.before, arguments, folder, options.after_round)
        print("the version before was killed; this version continues", flush=True)
        command = [sys.executable, "-c", MIXED_DEMO, str(options.before.resolve()), OLD_AGENT]
        done = subprocess.run(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env=single_threaded(),
        )
        print(done.stdout, flush=True)
        if done.returncode:
            return 1
        result = json.loads(done.stdout.splitlines()[-1])
        digest = adapter_digest(Path(result["artefact_path"]))
    expected = demo(options.before, sys.executable)["demo"]
    print(f"adapter {digest}, undisturbed {expected}")
    return int(digest != expected)


def _run_until_killed(root: Path, arguments: Sequence[str], folder: Path, number: int) -> None:
    """Run the demo of a checkout, and kill everything after round ``number`` has closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", DEMO, *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        env=single_threaded(),
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if f"round {number} closed" in line:
            break
    process.kill()
    process.wait()
    _kill_processes_of(folder)


def _kill_processes_of(folder: Path) -> None:
    """SIGKILL every process whose environment or command names the folder, until none is left."""
    mark = str(folder).encode()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        alive = [
            pid
            for pid in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
            if pid != os.getpid() and _mentions(pid, mark)
        ]
        if not alive:
            return
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    raise RuntimeError(f"processes of {folder} are still running")


def _mentions(pid: int, mark: bytes) -> bool:
    """Whether a living process was started for a folder; a zombie has no environment."""
    try:
        texts = [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline")]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return any(mark in text for text in texts)

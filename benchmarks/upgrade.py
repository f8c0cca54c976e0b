"""``python -m benchmarks upgrade``: take over a running job from the version before.

The version before runs the demo's job (seed 7, fp32, one thread, deterministic). After some rounds
all its processes are killed with SIGKILL. This version migrates the database in the same folder and
continues, with new agents on the old agents' state folders. The job must complete with the SHA-256
of an undisturbed run: the ``demo`` row of ``identical_results.json`` if it was written on such a
machine, else a run of this version's demo. Meanwhile an agent from before the line is started
again, and must be told to update.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks import identical_results
from benchmarks.identical_results import DEMO, TABLE, adapter_digest, single_threaded

OLD_AGENT = "law-office-pc"
READY = re.compile(r"the site is ready after .*: (http\S+)")
UPDATE = "update it"
REFUSED_WITHIN_S = 90.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--before", type=Path, required=True, help="checkout of the version before")
    parser.add_argument("--after-round", type=int, default=3, help="kill once this round closed")
    parser.add_argument("--port", type=int, default=8125, help="tried first for the web site")


def run(options: argparse.Namespace) -> int:
    """Return 0 if the job completes with the bits of an undisturbed run, else 1."""
    with tempfile.TemporaryDirectory(prefix="edgewise-upgrade-") as name:
        folder, old_state = Path(name) / "site", Path(name) / "old agent"
        arguments = ["--folder", str(folder), "--port", str(options.port), "--exit"]
        _run_until_killed(options.before, arguments, folder, options.after_round)
        print("the version before was killed; this version continues", flush=True)
        shutil.copytree(folder / "devices" / OLD_AGENT, old_state)
        result, asked_to_update = _take_over(options.before.resolve(), arguments, old_state)
        if not result:
            return 1
        digest = adapter_digest(Path(json.loads(result)["artefact_path"]))
    # The digest of the demo's adapter on this machine.
    table = json.loads(TABLE.read_text("utf-8"))
    if table["machine"] == identical_results.this_machine(sys.executable):
        expected = str(table["sha256"]["demo"])
    else:
        print("the table is of another machine; running the demo undisturbed", flush=True)
        expected = identical_results.demo(Path(), sys.executable)["demo"]
    print(f"adapter {digest}, undisturbed {expected}")
    print(f"the agent before {'is' if asked_to_update else 'is NOT'} told to update")
    return int(digest != expected or not asked_to_update)


def _take_over(before: Path, arguments: Sequence[str], old_state: Path) -> tuple[str, bool]:
    """The demo's last line, '' where it failed, and whether an old agent was told to update."""
    demo = subprocess.Popen(
        [sys.executable, "-c", DEMO, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=single_threaded(),
    )
    assert demo.stdout is not None
    line, asked_to_update = "", False
    for line in demo.stdout:
        print(line, end="", flush=True)
        if ready := READY.search(line):
            asked_to_update = _asks_to_update(before, old_state, ready[1])
    return ("" if demo.wait() else line), asked_to_update


def _asks_to_update(before: Path, state: Path, url: str) -> bool:
    """Whether the site tells this agent, which runs until it is told, to update."""
    if (before / "workers" / "agent" / "line").exists():
        return True  # it has a line: there is nothing to update
    log = state.with_suffix(".log")
    command = [sys.executable, "-m", "workers.agent", "run", "--server", url]
    env = {**os.environ, "EDGEWISE_STATE_DIR": str(state)}
    with log.open("wb") as out:
        agent = subprocess.Popen(command, cwd=before, env=env, stdout=out, stderr=out)
    deadline = time.monotonic() + REFUSED_WITHIN_S
    while UPDATE not in log.read_text(errors="replace") and time.monotonic() < deadline:
        time.sleep(0.2)
    agent.kill()
    agent.wait()
    text = log.read_text(errors="replace")
    print("\n".join(f"  old agent: {line}" for line in text.splitlines()[-3:]), flush=True)
    return UPDATE in text


def _run_until_killed(root: Path, arguments: Sequence[str], folder: Path, number: int) -> None:
    """Run the demo of a checkout, and kill everything after round ``number`` has closed."""
    demo = subprocess.Popen(
        [sys.executable, "-c", DEMO, *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        env=single_threaded(),
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        print(line, end="", flush=True)
        if f"round {number} closed" in line:
            break
    demo.kill()
    demo.wait()
    _kill_processes_of(folder)


def _kill_processes_of(folder: Path) -> None:
    """SIGKILL every process whose environment or command names the folder, until none is left."""
    mark = str(folder).encode()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        alive = []
        for path in Path("/proc").iterdir():
            if not path.name.isdecimal() or int(path.name) == os.getpid():
                continue
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                texts = [(path / name).read_bytes() for name in ("environ", "cmdline")]
                if any(mark in text for text in texts):  # a zombie has no environment
                    alive.append(int(path.name))
        if not alive:
            return
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    raise RuntimeError(f"processes of {folder} are still running")

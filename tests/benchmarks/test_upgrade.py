"""The command that takes over a job from the version before: its parts, and the whole in prove."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.upgrade import _kill_processes_of
from tests.compose import ROOT


def test_kill_ends_only_the_folders_processes(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    env = {**os.environ, "EDGEWISE_VAR_DIR": str(tmp_path / "site" / "var")}
    inside = subprocess.Popen(sleep, env=env, stdout=subprocess.PIPE)
    outside = subprocess.Popen(sleep, stdout=subprocess.PIPE)
    try:
        for process in (inside, outside):
            assert process.stdout is not None
            process.stdout.readline()
        _kill_processes_of(tmp_path / "site")
        assert inside.wait(10) == -9
        assert outside.poll() is None
    finally:
        inside.kill()
        outside.kill()


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_job_survives_change_of_version() -> None:
    """This checkout stands for both versions here; the command takes any other one."""
    assert main(["upgrade", "--before", str(ROOT), "--after-round", "1"]) == 0

"""Logs stay small: of a site at rest by what it writes, of a busy one by rotation."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from workers.stack.processes import Processes
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.slow]

DAY_S = 86_400.0
REST_S = 20.0
DAILY_BYTES = 1_000_000
CLEAN_UP_BYTES = 300  # one line every five minutes, which falls between two measurements
WRITER = "import sys, time\nwhile True:\n    print('x' * 999, flush=True)\n    time.sleep(0.001)"


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.log"))


def test_site_at_rest_writes_under_1_mb_a_day(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    try:
        stack.start()
        time.sleep(5.0)  # the processes say what they are
        before = _bytes(stack.processes.log_dir)
        time.sleep(REST_S)
        written = _bytes(stack.processes.log_dir) - before
    finally:
        stack.stop()
    assert written * DAY_S / REST_S + CLEAN_UP_BYTES * DAY_S / 300 < DAILY_BYTES


def test_rotation_bounds_the_log_of_a_running_process(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    path, limit_bytes = processes.log_path("writer"), 50_000
    try:
        processes.start("writer", [sys.executable, "-c", WRITER], {})
        deadline = time.monotonic() + 20
        while not path.exists() or path.stat().st_size <= limit_bytes:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        processes.rotate_logs(limit_bytes)
        rotated = path.with_suffix(".log.1").read_bytes()
        while path.stat().st_size == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        processes.stop_all()
    assert len(rotated) > limit_bytes
    assert path.read_bytes()[:1] == b"x", "the process appends to the emptied file"

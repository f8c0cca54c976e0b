"""A real site notices that its coordinator or its aggregation worker is gone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.slow]

SCRIPT = """
import json
from webapp.jobs.lifecycle.site_state import site_faults
print(json.dumps([fault.text for fault in site_faults()]))
"""
LIMIT_S = 150.0  # a worker counts as gone after 60 s without a sign of life


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def faults(stack: Stack) -> list[str]:
    lines = stack.manage("shell", "--no-imports", "-c", SCRIPT).splitlines()
    texts: list[str] = json.loads(lines[-1])
    return texts


def wait_for_faults(stack: Stack, *beginnings: str) -> None:
    until = time.monotonic() + LIMIT_S
    while True:
        texts = faults(stack)
        matches = zip(texts, beginnings, strict=False)
        if len(texts) == len(beginnings) and all(a.startswith(b) for a, b in matches):
            return
        assert time.monotonic() < until, texts
        time.sleep(1.0)


def test_missing_processes_are_named(stack: Stack) -> None:
    wait_for_faults(stack)
    for part in ("coordinator", "aggregate"):
        stack.processes.kill(part)
    wait_for_faults(
        stack, "the coordinator has not run for ", "no aggregation worker is running: start one"
    )
    for part in ("coordinator", "aggregate"):
        stack.start_part(part)
    wait_for_faults(stack)
    stack.processes.kill("broker-site")
    wait_for_faults(stack, "the site's broker (Redis) does not answer", "the coordinator has not")

"""Out of memory, by an exception or by the kernel: the site learns what there is to halve."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.agent.conftest import AgentProcess, wait_for
from tests.agent.stand_in import StandIn
from workers.agent.assignment.failure import Failure, failure_of
from workers.agent.control.oom_kills import CGROUPS, oom_kills

MARGIN_BYTES = 60 * 2**20


def test_exceptions_that_mean_out_of_memory() -> None:
    expected = Failure("out of memory on this device", False, out_of_memory=True)
    assert failure_of(MemoryError()) == expected
    assert failure_of(torch.OutOfMemoryError("CUDA out of memory")) == expected
    assert failure_of(torch.cuda.OutOfMemoryError("CUDA out of memory")) == expected


def test_exception_reports_the_size_to_halve(agent: AgentProcess, server: StandIn) -> None:
    agent.start()
    unknown = server.offer("fail=memory")
    wait_for(lambda: unknown.failure)
    known = server.offer("at_once=8 fail=memory")
    wait_for(lambda: known.failure)
    for offered, micro_batch in ((unknown, 0), (known, 8)):
        failure = offered.failure
        assert (failure["out_of_memory"], failure["micro_batch"]) == (True, micro_batch)
        assert failure["reason"] == "out of memory on this device"
    after = server.offer("steps=1")
    wait_for(lambda: after.phase == "reported")


class MemoryGroup:
    """A control group of this test's own, of version 2 or 1."""

    def __init__(self) -> None:
        name = f"edgewise-test-{uuid.uuid4().hex[:8]}"
        is_v2 = (CGROUPS / "cgroup.controllers").exists()
        self._folder = (CGROUPS if is_v2 else CGROUPS / "memory") / name
        self._limit = "memory.max" if is_v2 else "memory.limit_in_bytes"
        self._used = "memory.current" if is_v2 else "memory.usage_in_bytes"
        self._folder.mkdir()

    @property
    def works(self) -> bool:
        return (self._folder / self._limit).exists()

    def add(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))

    def limit(self, further_bytes: int) -> None:
        """No more than now, plus ``further_bytes``."""
        used = int((self._folder / self._used).read_text())
        (self._folder / self._limit).write_text(str(used + further_bytes))

    def remove(self) -> None:
        """With the processes that are still in it; it is busy until they have ended."""
        wait_for(self._is_empty)
        self._folder.rmdir()

    def _is_empty(self) -> bool:
        pids = [int(pid) for pid in (self._folder / "cgroup.procs").read_text().split()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids


@pytest.fixture
def memory_group() -> Iterator[MemoryGroup]:
    try:
        group = MemoryGroup()
    except OSError as error:
        pytest.skip(f"needs the right to make a control group ({error})")
    try:
        if not group.works:
            pytest.skip("control groups here do not limit memory")
        yield group
    finally:
        group.remove()


def test_kernel_kill_reports_the_size_to_halve(
    agent: AgentProcess, memory_group: MemoryGroup, server: StandIn
) -> None:
    agent.start()
    for pid in (agent.pid, *agent.children()):
        memory_group.add(pid)
    first = server.offer("steps=1")
    wait_for(lambda: first.phase == "reported")
    wait_for(lambda: server.activities and server.activities[-1]["assignment"] is None)
    memory_group.limit(MARGIN_BYTES)
    hog = server.offer("at_once=6 fail=hog")
    wait_for(lambda: hog.failure, 20)
    reason = "the system killed the training process for lack of memory while training, step 0"
    assert hog.failure["reason"] == reason
    assert (hog.failure["out_of_memory"], hog.failure["micro_batch"]) == (True, 6)
    crash = server.offer("at_once=6 fail=crash")
    wait_for(lambda: crash.failure, 20)
    assert (crash.failure["out_of_memory"], crash.failure["retryable"]) == (False, True)
    assert "ended unexpectedly" in crash.failure["reason"]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"
VMSTAT = "nr_free_pages 1\noom_kill 9\n"


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "cgroup/a/b/memory.events": EVENTS}, 2),
        ({"proc/self/cgroup": "0::/../b\n", "cgroup/memory.events": EVENTS}, 2),
        (
            {
                "proc/self/cgroup": "4:cpu,memory:/x\n0::/\n",
                "cgroup/memory/x/memory.oom_control": "under_oom 0\noom_kill 5\n",
                "proc/vmstat": VMSTAT,
            },
            5,
        ),
        ({"proc/self/cgroup": "0::/\n", "proc/vmstat": VMSTAT}, 9),
        ({"proc/vmstat": VMSTAT}, 9),
        ({"proc/self/cgroup": "0::/\n", "cgroup/memory.events": "nonsense\n"}, 0),
        ({}, 0),
    ],
)
def test_counter_of_kills(tmp_path: Path, files: dict[str, str], kills: int) -> None:
    write(tmp_path, files)
    assert oom_kills(tmp_path / "proc", tmp_path / "cgroup") == kills


def test_counter_here_is_a_number() -> None:
    assert oom_kills() >= 0 and Path("/proc/vmstat").exists()

"""Memory of process trees, from /proc: Linux only."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

AGENTS = "agents"


def tree(pid: int) -> list[psutil.Process]:
    """A process and all that it started, as far as they still live."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def forget_peaks(pids: Mapping[str, int]) -> None:
    """Let the peaks begin anew at what is resident now."""
    for process in [process for pid in pids.values() for process in tree(pid)]:
        with suppress(OSError):  # it has ended
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def resident_bytes(pids: Mapping[str, int], field: str = "VmRSS") -> dict[str, int]:
    """Resident bytes of each name's tree: VmRSS now, VmHWM at its peak."""
    sizes = dict.fromkeys(pids, 0)
    for name, pid in pids.items():
        for process in tree(pid):
            with suppress(OSError):  # it has ended
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    if line.startswith(f"{field}:"):
                        sizes[name] += int(line.split()[1]) * 1024
    return sizes


def by_part(values: Mapping[str, float]) -> dict[str, Any]:
    """Sums: all agents count as one, and all processes of the database."""
    sums: dict[str, Any] = {}
    for name, value in values.items():
        key = AGENTS if name.startswith("agent-") else name.split()[0]
        sums[key] = sums.get(key, 0) + value
    return sums


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Seconds of CPU that each name's tree has used so far, without children that have ended."""
    cpu_s = {}
    for name, pid in pids.items():
        cpu_s[name] = 0.0
        for process in tree(pid):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                cpu_s[name] += times.user + times.system
    return cpu_s

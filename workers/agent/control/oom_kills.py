"""How often the kernel has killed processes of this agent's control group for lack of memory."""

from __future__ import annotations

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def oom_kills(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """A counter: of this control group (version 2 or 1), else of the whole machine; else 0."""
    for path in [*_counters(proc, cgroups), proc / "vmstat"]:
        try:
            pairs = (line.split() for line in path.read_text().splitlines())
            count = next((int(pair[1]) for pair in pairs if pair[0] == "oom_kill"), None)
        except (OSError, ValueError, IndexError):
            continue
        if count is not None:
            return count
    return 0


def _counters(proc: Path, cgroups: Path) -> list[Path]:
    """Files with the counter, the most specific first. Containers may see their group as root."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        group = group.lstrip("/")
        if not controllers:
            files += [cgroups / group / "memory.events", cgroups / "memory.events"]
        elif "memory" in controllers.split(","):
            memory = cgroups / "memory"
            files += [memory / group / "memory.oom_control", memory / "memory.oom_control"]
    return files

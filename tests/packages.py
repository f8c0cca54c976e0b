"""Programs that tests drive; as root on Debian, what is missing is installed by apt-get."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache

APT_LIMIT_S = 600
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")  # not on everybody's PATH
# Program: the packages that bring it.
PROGRAMS: dict[str, tuple[str, ...]] = {
    "nginx": ("nginx",),
    "redis-server": ("redis-server",),
    "pg_dump": ("postgresql-client",),
    "cc": ("gcc", "libc6-dev"),
}


def find(program: str) -> str | None:
    """The program's path, None where it is not installed."""
    return shutil.which(program, path=os.pathsep.join([os.environ["PATH"], *SYSTEM_FOLDERS]))


@cache
def ensure(programs: tuple[str, ...] = tuple(PROGRAMS)) -> None:
    """Install those of ``programs`` that are missing, if this process may; tests skip without."""
    missing = [program for program in programs if find(program) is None]
    if missing:
        install(name for program in missing for name in PROGRAMS[program])


def install(packages: Iterable[str]) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    names = list(packages)
    print(f"installing {' '.join(names)} ...", flush=True)
    if succeeds(["apt-get", "update", "-qq"], APT_LIMIT_S):
        succeeds(["apt-get", "install", "-y", "-qq", *names], APT_LIMIT_S)


def succeeds(command: Sequence[str], limit_s: float) -> bool:
    """Whether a command without output ends well in time."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            list(command), env=env, stdout=subprocess.DEVNULL, check=False, timeout=limit_s
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{command[0]}: {error}", flush=True)
        return False
    return done.returncode == 0

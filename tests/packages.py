"""Programs that tests drive; as root on Debian, what is missing is installed by apt-get."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

APT_LIMIT_S = 600
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")  # not on everybody's PATH
POLICY = Path("/usr/sbin/policy-rc.d")
# Program: the packages that bring it.
PROGRAMS: dict[str, tuple[str, ...]] = {
    "nginx": ("nginx",),
    "caddy": ("caddy",),
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
    with _without_starting_services():
        if succeeds(["apt-get", "update", "-qq"], APT_LIMIT_S):
            succeeds(["apt-get", "install", "-y", "-qq", *names], APT_LIMIT_S)


@contextmanager
def _without_starting_services() -> Iterator[None]:
    """Debian's package scripts ask this file first; 101 forbids the start of a service."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


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

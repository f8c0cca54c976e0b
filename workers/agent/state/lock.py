"""The lock that allows one running agent per state folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from workers.agent.agent_errors import AgentError

FILE = "run.lock"


class RunLock:
    """Locked until ``release`` or the end of the process; a forked child must ``forget`` it."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE
        self._handle: int | None = None

    def acquire(self, patience_s: float = 2.0) -> None:
        """Lock; an agent that was just killed has ``patience_s`` to end."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + patience_s
        while not _try_lock(handle):
            if time.monotonic() >= until:
                holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
                os.close(handle)
                raise AgentError(
                    f"an agent is already running on {self._path.parent} (process {holder}); "
                    "stop it, or give this one its own --state-dir"
                )
            time.sleep(0.05)
        with contextlib.suppress(OSError):  # the number is for messages only; a disk may be full
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        self._handle = handle

    def forget(self) -> None:
        """In a forked child: close the inherited handle; the parent keeps the lock."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def release(self) -> None:
        if self._handle is not None:
            fcntl.flock(self._handle, fcntl.LOCK_UN)
            self.forget()


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder_of(state_dir: Path) -> int | None:
    """The id of the process that runs on ``state_dir`` now, or None."""
    path = state_dir / FILE
    if not path.exists():
        return None
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if _try_lock(handle):
            return None
        text = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdecimal() else None
    finally:
        os.close(handle)

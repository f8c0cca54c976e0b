"""Child processes that never outlive their parent, each with a log file."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
STOP_GRACE_S = 10.0
LOG_LIMIT_BYTES = 5_000_000


class StartError(RuntimeError):
    """A process ended or was not ready in time, although it should have started."""


def free_port(preferred: int = 0) -> int:
    """``preferred`` if it is free, otherwise any free port of the loopback interface."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StartError("there is no free port on the loopback interface; stop some processes")


def _die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends; without effect outside Linux."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Processes:
    """Named child processes. Each leads its own session, so Ctrl-C reaches the parent alone."""

    log_dir: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.log_dir.mkdir(parents=True, exist_ok=True)
        with self.log_path(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                list(command),
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def rotate_logs(self, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
        """Move what is in logs above the limit to ``NAME.log.1``, which is replaced.

        Processes append to their logs, so they continue at the start of the emptied file. A line
        that is written in between is lost.
        """
        for path in self.log_dir.glob("*.log"):
            if path.stat().st_size > limit_bytes:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)

    def log_path(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    def log_tail(self, name: str, lines: int = 20) -> str:
        path = self.log_path(name)
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def is_alive(self, name: str) -> bool:
        return name in self.running and self.running[name].poll() is None

    def check(self, name: str) -> None:
        """Raise StartError with the end of its log if the process has ended."""
        if not self.is_alive(name):
            raise StartError(f"{name} has ended; the end of its log:\n{self.log_tail(name)}")

    def kill(self, name: str) -> None:
        """SIGKILL the process and everything it started."""
        self._signal(self.running.pop(name), signal.SIGKILL)

    def stop(self, *names: str, grace_s: float = STOP_GRACE_S) -> None:
        """Stop these processes together, and kill those still running after ``grace_s``."""
        stopping = [self.running.pop(name) for name in names]
        for process in stopping:
            self._signal(process, signal.SIGTERM, group=False)
        deadline = time.monotonic() + grace_s
        for process in stopping:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            self._signal(process, signal.SIGKILL)

    def stop_all(self, grace_s: float = STOP_GRACE_S) -> None:
        self.stop(*self.running, grace_s=grace_s)

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: int, group: bool = True) -> None:
        with suppress(ProcessLookupError):  # it has already ended
            os.killpg(process.pid, number) if group else process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait()


def wait_for_port(processes: Processes, name: str, port: int, limit_s: float) -> None:
    """Wait until a process listens. Raises StartError with its log if it ends or is late."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        processes.check(name)
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise StartError(f"{name} is not listening on port {port} after {limit_s:.0f} s")

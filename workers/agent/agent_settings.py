"""The agent's settings. Only this file reads the environment; options take precedence."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.agent.agent_errors import AgentError

VERSION = "0.1.0"
MIN_FREE_BYTES = 256_000_000  # model and update of FLAN-T5 base under LoRA, and a margin
DEFAULT_STATE_DIR = "~/.local/share/edgewise"
LOG_LEVELS = ("debug", "info", "warning", "error")

CHATTY = (
    "httpx",
    "httpcore",
    "kombu",
    "websockets",
    "celery.apps.worker",
    "celery.worker.consumer",
    "celery.app.trace",
    "celery.worker.strategy",
    "datasets",
    "absl",
    "fsspec",
)
# The first two report a training process that was killed, which the supervisor explains; the last
# warns about Celery's future defaults.
SILENCED = ("celery.worker.request", "multiprocessing", "py.warnings")

# Name -> what it does; docs/reference/agent.md lists them all.
VARIABLES: Mapping[str, str] = {
    "EDGEWISE_STATE_DIR": "folder for credential, outbox and caches",
    "EDGEWISE_THREADS": "CPU threads for training; 0: all cores",
    "EDGEWISE_LOG_LEVEL": "debug, info, warning or error",
    "EDGEWISE_LINK": "link to emulate, such as lte; instant: none",
    "EDGEWISE_CA_FILE": "certificates (PEM) to trust for the server",
    "EDGEWISE_MIN_FREE_BYTES": "free bytes of the state folder's disk that a run needs",
}
# Set by the agent's main process for its worker, and by tests.
SOCKET_VARIABLE = "EDGEWISE_LINE_SOCKET"
TRAINER_VARIABLE = "EDGEWISE_TRAINER"
CONFIRM_VARIABLE = "EDGEWISE_CONFIRM_REVOCATION_S"
CONFIRM_REVOCATION_S = 120.0
REAL_TRAINER = "workers.agent.assignment.trainer_factory:real_trainer"


@dataclass(frozen=True)
class AgentSettings:
    """How this agent runs. ``threads`` 0: all cores; ``link`` '': the one chosen last.

    ``line_socket``: that of the main process, for its worker. ``trainer``: ``module:function``
    which builds the trainer from settings and profile. ``confirm_revocation_s``: after so long the
    site is asked for the second time whether it revoked this device.
    """

    state_dir: Path
    threads: int = 0
    log_level: str = "info"
    ca_file: Path | None = None
    link: str = ""
    line_socket: Path | None = None
    trainer: str = REAL_TRAINER
    min_free_bytes: int = MIN_FREE_BYTES
    confirm_revocation_s: float = CONFIRM_REVOCATION_S

    @property
    def database(self) -> Path:
        return self.state_dir / "agent.sqlite3"

    @property
    def artefacts(self) -> Path:
        return self.state_dir / "artefacts"

    @property
    def cache(self) -> Path:
        return self.state_dir / "cache"

    def environment(self) -> dict[str, str]:
        """Variables from which ``read_settings`` makes the same settings."""
        return {
            "EDGEWISE_STATE_DIR": str(self.state_dir),
            "EDGEWISE_THREADS": str(self.threads),
            "EDGEWISE_LOG_LEVEL": self.log_level,
            "EDGEWISE_LINK": self.link,
            "EDGEWISE_CA_FILE": str(self.ca_file or ""),
            SOCKET_VARIABLE: str(self.line_socket or ""),
            TRAINER_VARIABLE: self.trainer,
            "EDGEWISE_MIN_FREE_BYTES": str(self.min_free_bytes),
        }


def read_settings(
    state_dir: str | None = None,
    threads: int | None = None,
    log_level: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> AgentSettings:
    """Options, then the environment, then defaults. Raises AgentError on invalid values."""
    folder = Path(state_dir or environ.get("EDGEWISE_STATE_DIR") or DEFAULT_STATE_DIR).expanduser()
    level = (log_level or environ.get("EDGEWISE_LOG_LEVEL") or "info").lower()
    if level not in LOG_LEVELS:
        raise AgentError(f"unknown log level {level!r}; give one of {', '.join(LOG_LEVELS)}")
    ca_file = environ.get("EDGEWISE_CA_FILE") or ""
    if ca_file and not Path(ca_file).is_file():
        raise AgentError(f"EDGEWISE_CA_FILE names {ca_file}, which does not exist")
    threads_text = environ.get("EDGEWISE_THREADS") or "0" if threads is None else str(threads)
    if not threads_text.isdecimal() or int(threads_text) > 1024:
        raise AgentError(f"threads must be a whole number from 0 to 1024, not {threads_text!r}")
    free_text = environ.get("EDGEWISE_MIN_FREE_BYTES") or str(MIN_FREE_BYTES)
    if not free_text.isdecimal():
        raise AgentError(f"EDGEWISE_MIN_FREE_BYTES must be a number of bytes, not {free_text!r}")
    line_socket = environ.get(SOCKET_VARIABLE) or ""
    return AgentSettings(
        folder.absolute(),
        int(threads_text),
        level,
        Path(ca_file) if ca_file else None,
        environ.get("EDGEWISE_LINK") or "",
        Path(line_socket) if line_socket else None,
        environ.get(TRAINER_VARIABLE) or REAL_TRAINER,
        int(free_text),
        float(environ.get(CONFIRM_VARIABLE) or CONFIRM_REVOCATION_S),
    )


def prepare_state_dir(settings: AgentSettings) -> None:
    """Create the state folder, readable by its owner alone."""
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise AgentError(
            f"cannot create {settings.state_dir} ({error.strerror}); "
            "give another folder with --state-dir"
        ) from error
    if not os.access(settings.state_dir, os.W_OK | os.X_OK):
        raise AgentError(f"{settings.state_dir} is not writable; give another with --state-dir")


def set_up_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(message)s", force=True
    )
    for name in CHATTY:
        logging.getLogger(name).setLevel("WARNING")
    for name in SILENCED:
        logging.getLogger(name).setLevel("CRITICAL")

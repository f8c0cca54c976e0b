"""Everything the agent reads from its environment, in this one file; options win over it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.agent.agent_errors import AgentError

VERSION = "0.1.0"
DEFAULT_STATE_DIR = "~/.local/share/edgewise"
LOG_LEVELS = ("debug", "info", "warning", "error")

CHATTY = (
    "httpx",
    "httpcore",
    "kombu",
    "celery.app.trace",
    "celery.worker.strategy",
    "datasets",
    "absl",
    "fsspec",
)
# The first two tell of a training process that was ended, where the warden says why; the last of
# Celery's defaults to come.
MUTE = ("celery.worker.request", "multiprocessing", "py.warnings")

# Name -> what it does; docs/reference/agent.md lists them all.
VARIABLES: Mapping[str, str] = {
    "EDGEWISE_STATE_DIR": "folder for credential, outbox and caches",
    "EDGEWISE_THREADS": "CPU threads for training; 0: all cores",
    "EDGEWISE_LOG_LEVEL": "debug, info, warning or error",
    "EDGEWISE_LINK": "link to emulate, such as lte; instant: none",
    "EDGEWISE_CA_FILE": "certificates (PEM) to trust for server and broker",
}


@dataclass(frozen=True)
class AgentSettings:
    """How this agent runs. ``threads`` 0 means all cores; ``link`` '' what was asked for before."""

    state_dir: Path
    threads: int = 0
    log_level: str = "info"
    ca_file: Path | None = None
    link: str = ""

    @property
    def database(self) -> Path:
        return self.state_dir / "agent.sqlite3"

    @property
    def artefacts(self) -> Path:
        return self.state_dir / "artefacts"

    @property
    def cache(self) -> Path:
        return self.state_dir / "cache"


def read_settings(
    state_dir: str | None = None,
    threads: int | None = None,
    log_level: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> AgentSettings:
    """Options where given, else the environment, else defaults. Raises AgentError on nonsense."""
    folder = Path(state_dir or environ.get("EDGEWISE_STATE_DIR") or DEFAULT_STATE_DIR).expanduser()
    level = (log_level or environ.get("EDGEWISE_LOG_LEVEL") or "info").lower()
    if level not in LOG_LEVELS:
        raise AgentError(f"log level {level!r} is unknown; give one of {', '.join(LOG_LEVELS)}")
    ca_file = environ.get("EDGEWISE_CA_FILE") or ""
    if ca_file and not Path(ca_file).is_file():
        raise AgentError(f"EDGEWISE_CA_FILE names {ca_file}, and there is no such file")
    wish = environ.get("EDGEWISE_THREADS") or "0" if threads is None else str(threads)
    if not wish.isdigit() or int(wish) > 1024:
        raise AgentError(f"threads must be a whole number from 0 to 1024, not {wish!r}")
    certificates = Path(ca_file) if ca_file else None
    link = environ.get("EDGEWISE_LINK") or ""
    return AgentSettings(folder.absolute(), int(wish), level, certificates, link)


def prepare_state_dir(settings: AgentSettings) -> None:
    """Make the state folder, readable by its owner alone."""
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise AgentError(
            f"{settings.state_dir} cannot be made ({error.strerror}); "
            "give another folder with --state-dir"
        ) from error
    if not os.access(settings.state_dir, os.W_OK | os.X_OK):
        raise AgentError(f"{settings.state_dir} is not writable; give another with --state-dir")


def set_up_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(message)s", force=True
    )
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel("WARNING")
    for mute in MUTE:
        logging.getLogger(mute).setLevel("CRITICAL")

"""Celery's worker as a process of its own, which Celery's command starts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

from workers.agent.agent_settings import AgentSettings

RESTART_S = 2.0
CODE_FOLDER = Path(__file__).resolve().parents[3]
COMMAND = (
    sys.executable,
    *("-m", "celery", "--quiet", "-A", "workers.agent.control.celery_app"),
    *("worker", "--pool", "prefork", "--concurrency", "1", "--loglevel", "INFO"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)

log = logging.getLogger(__name__)


async def keep_worker(settings: AgentSettings, device_id: int, stopping: asyncio.Event) -> None:
    """Run the worker until ``stopping`` is set; start another where it ended by itself."""
    while not stopping.is_set():
        code = await _run_worker(settings, device_id)
        if not stopping.is_set():
            log.error("the Celery worker ended by itself (code %d); restarting", code)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stopping.wait(), RESTART_S)


async def _run_worker(settings: AgentSettings, device_id: int) -> int:
    """Its exit code. Signals of the terminal do not reach it: the supervisor ends it."""
    search_path = os.pathsep.join(filter(None, [str(CODE_FOLDER), os.environ.get("PYTHONPATH")]))
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("--hostname", f"device-{device_id}@edgewise"),
        env={**os.environ, **settings.environment(), "PYTHONPATH": search_path},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it may have left behind

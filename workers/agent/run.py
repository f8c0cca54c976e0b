"""Runs the agent until a signal stops it, or until the server has revoked its credential."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import Raw

from fedcore.errors import Stopped
from workers.agent.agent_settings import AgentSettings, prepare_state_dir
from workers.agent.control.supervisor import StopRequest, kill_children
from workers.agent.http.link_emulation import SHARED_FILE, choose_link, throttle_for
from workers.agent.http.server_api import check_url
from workers.agent.main_process import MainProcess
from workers.agent.startup import Agent, assemble, current_profile, hello_of
from workers.agent.state import credentials
from workers.agent.state.lock import RunLock

STOPPED = "the agent was stopped"
SOCKET = "line.sock"
LONGEST_SOCKET_FOLDER = 80  # a Unix socket's path has at most 103 bytes
SECOND_SIGNAL_S = 0.5  # the first signal may come twice: from the terminal and from a parent


def run(settings: AgentSettings, server_url: str = "", link: str = "") -> int:
    """Run until stopped; returns the exit code. Raises AgentError where it cannot start.

    ``server_url`` is the server's new address, '' if unchanged; ``link`` is a link to emulate.
    """
    prepare_state_dir(settings)
    credential = credentials.require(settings.state_dir)
    if server_url:
        credential = replace(credential, server=check_url(server_url))
    chosen = choose_link(settings, link)
    lock = RunLock(settings.state_dir)
    lock.acquire()
    try:
        # Sockets need a short path; None: the usual place.
        parent = None if len(tempfile.gettempdir()) <= LONGEST_SOCKET_FOLDER else "/tmp"
        with tempfile.TemporaryDirectory(prefix="edgewise-", dir=parent) as folder:
            socket = Path(folder) / SOCKET
            settings = replace(settings, link=chosen.name, line_socket=socket)
            throttle = throttle_for(chosen, socket.with_name(SHARED_FILE))
            stop = StopRequest()
            signals = _Signals(stop)
            agent = assemble(settings, credential, stop, throttle)
            profile = current_profile(agent)
            hello = hello_of(agent, profile)
            signals.begin_graceful()
            return asyncio.run(_live(agent, profile, hello))
    except Stopped:
        return 0
    finally:
        lock.release()


async def _live(agent: Agent, profile: dict[str, Any], hello: Raw) -> int:
    return await MainProcess(agent, profile, hello).run()


class _Signals:
    """SIGTERM and SIGINT stop the agent: at once while it starts, and when they come again."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._graceful = False
        self._first_at = 0.0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def begin_graceful(self) -> None:
        """From now on the supervisor ends the agent."""
        self._graceful = True

    def _handle(self, *_: Any) -> None:
        if not self._graceful:
            raise Stopped(STOPPED)
        if not self._stop.requested:
            self._first_at = time.monotonic()
            self._stop.request(0, STOPPED)
        elif time.monotonic() - self._first_at > SECOND_SIGNAL_S:
            kill_children()
            os._exit(self._stop.exit_code)

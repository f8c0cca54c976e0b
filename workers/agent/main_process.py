"""The agent's main process: it holds the line to the server, and the worker that trains.

Threads beside its loop send samples (``telemetry.sender``) and watch the training process
(``control.supervisor``).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Coroutine
from functools import partial
from typing import Any

from msgspec import Raw

from workers.agent.agent_errors import Revoked
from workers.agent.control.health import DeviceHealth, HealthWatch
from workers.agent.control.site_frames import SiteFrames
from workers.agent.control.supervisor import Supervisor
from workers.agent.control.worker_process import keep_worker
from workers.agent.http.server_api import ServerApi
from workers.agent.line.device_line import Line, LineOptions
from workers.agent.line.gatekeeper import Gatekeeper
from workers.agent.line.line_api import LineApi
from workers.agent.line.local_messages import StartAnswer
from workers.agent.line.local_server import LocalServer
from workers.agent.line.offers import Offers
from workers.agent.line.opening import line_site_of
from workers.agent.line.site_call import LoopCaller
from workers.agent.startup import Agent
from workers.agent.state import credentials
from workers.agent.telemetry.sender import Sender

EXIT_REVOKED = 3
EXIT_BROKEN = 1

log = logging.getLogger(__name__)


class MainProcess:
    """Create it in its event loop."""

    def __init__(self, agent: Agent, profile: dict[str, Any], hello: Raw) -> None:
        self._agent = agent
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        settings = agent.settings
        health = DeviceHealth(
            settings.state_dir, settings.min_free_bytes, agent.shared_state, agent.clock
        )
        offers = Offers(health.can_work)
        gatekeeper = Gatekeeper(
            agent.credential.device_id, agent.site_key, agent.shared_state, agent.clock.now
        )
        self._frames = SiteFrames(
            offers, gatekeeper, agent.site_key, agent.shared_state, agent.outbox, agent.clock
        )
        options = LineOptions(link=agent.throttle, confirm_s=settings.confirm_revocation_s)
        self._line = Line(line_site_of(agent.address), hello, self._frames, options)
        self._health_watch = HealthWatch(health, self._line, offers.look_again, self._mend)
        self._frames.on_greeted = self._health_watch.greeted
        self._local = LocalServer(self._line, offers, StartAnswer(agent.boot_id, profile))
        line = self._line
        api = LineApi(LoopCaller(line, self._loop), ServerApi(agent.address).assignment)
        self._sender = self._frames.sender = Sender(
            api,
            agent.outbox,
            agent.shared_state,
            lambda: self._frames.note_contact(line),
        )

    async def run(self) -> int:
        """Until the agent is asked to stop; returns the exit code."""
        agent, credential = self._agent, self._agent.credential
        assert agent.settings.line_socket is not None
        await self._local.open(agent.settings.line_socket)
        supervisor = Supervisor(
            agent.shared_state,
            agent.stop,
            self._sender.hurry,
            self._sender.report_loss,
            partial(self._loop.call_soon_threadsafe, self._stopping.set),
        )
        self._sender.start()
        supervisor.start()
        log.info("%s is connecting to %s", credential.name, credential.server)
        line = asyncio.create_task(self._supervise(self._line.run(), "the line"))
        worker = asyncio.create_task(
            keep_worker(agent.settings, credential.device_id, self._stopping)
        )
        ready = asyncio.create_task(self._announce())
        watch = self._supervise(self._health_watch.run(), "the check of this device's health")
        health = asyncio.create_task(watch)
        await self._stopping.wait()
        self._sender.stop()
        await worker  # the supervisor has killed it
        await self._line.stop()
        line.cancel()
        ready.cancel()
        health.cancel()
        await self._local.close()
        if agent.stop.exit_code == EXIT_REVOKED:
            log.error(
                "this device's credential was revoked (%s). The agent ends; to take part again, "
                "run unenroll --force and enrol with a new token",
                agent.stop.reason,
            )
        return agent.stop.exit_code

    async def _supervise(self, part: Coroutine[Any, Any, None], name: str) -> None:
        """Run a part of the agent; stop the agent where it ends by an error."""
        try:
            await part
        except Revoked as error:
            self._agent.stop.request(EXIT_REVOKED, str(error))
        except Exception as error:
            log.exception("%s ended by an error of this agent", name)
            self._agent.stop.request(EXIT_BROKEN, f"an error of this agent: {error}")

    def _mend(self) -> None:
        """The store works again: catch up on what could not be written."""
        try:
            self._frames.store_greeting()
        except sqlite3.Error as error:  # the next hello writes it again
            log.warning("cannot store what the server said: %s", error)

    async def _announce(self) -> None:
        """Once both the site and the worker are there."""
        agent = self._agent
        await self._frames.first_greeting.wait()
        state_dir, server = agent.settings.state_dir, agent.credential.server
        if credentials.require(state_dir).server != server:
            credentials.change(state_dir, server=server)  # its new address
        await self._local.worker_attached.wait()
        log.info("%s is ready for work (%s)", agent.credential.name, agent.settings.state_dir)

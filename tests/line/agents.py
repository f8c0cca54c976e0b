"""The agent's own line, with its handlers and state, against a real site."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from pathlib import Path
from typing import Any

from msgspec import Raw

from fedcore.formats.line_bodies import Hello, UpKind
from fedcore.formats.line_messages import body_of
from tests.conftest import Enrolled
from tests.line.clients import DATASETS
from webapp.devices.signing import public_key
from workers.agent.control.site_frames import SiteFrames
from workers.agent.http.server_api import Address
from workers.agent.http.server_clock import Clock
from workers.agent.line.device_line import Line, LineOptions
from workers.agent.line.gatekeeper import Gatekeeper
from workers.agent.line.local_messages import Push
from workers.agent.line.offers import Offers
from workers.agent.line.opening import line_site_of
from workers.agent.line.site_call import LoopCaller
from workers.agent.state import credentials
from workers.agent.state.database import StateDatabase
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import SharedState
from workers.agent.state.site_key import SiteKey


class RealAgent:
    """An agent without its training: its line runs in a thread."""

    def __init__(self, url: str, pi: Enrolled, folder: Path, boot_id: str, **options: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.boot_id, self.folder = boot_id, folder
        self.key = SiteKey(base64.b64decode(public_key()), folder)
        self._save_credential(url, pi, folder)
        self.state = SharedState(StateDatabase(folder / "agent.sqlite3"))
        self.outbox = Outbox(StateDatabase(folder / "agent.sqlite3"))
        self.offers, self.offered = Offers(), []
        self.offers.attach(self._take)
        address = Address(url, pi.api_token, key=self.key)
        clock = Clock()
        gatekeeper = Gatekeeper(pi.device.pk, self.key, self.state, clock.now)
        self.frames = SiteFrames(self.offers, gatekeeper, self.key, self.state, self.outbox, clock)
        hello = Hello(boot_id, "0.1.0", Raw(b"{}"), body_of(DATASETS))
        self.line = Line(line_site_of(address), body_of(hello), self.frames, LineOptions(**options))
        self.error: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _save_credential(self, url: str, pi: Enrolled, folder: Path) -> None:
        answer = {
            "device": {"id": pi.device.pk, "name": pi.device.name, "role": "trainer"},
            "api_token": pi.api_token,
            "signing_public_key": public_key(),
        }
        credentials.save(folder, credentials.from_enrolment(url, answer, "2026-01-01T00:00:00Z"))

    def __enter__(self) -> RealAgent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)

    def _run(self) -> None:
        async def hold() -> None:
            self._task: Any = asyncio.current_task()
            try:
                await self.line.run()
            except Exception as error:
                self.error = error

        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(hold())

    def call(self, kind: UpKind, **body: Any) -> dict[str, Any]:
        """Raises what an agent's processes get to see, such as ServerUnavailable."""
        return LoopCaller(self.line, self._loop).call(kind, body)

    def _take(self, push: Push) -> None:
        self.offered.append(push)
        self._loop.call_soon(self.offers.finished, push.tag)

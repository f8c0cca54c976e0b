"""Starting the agent: its parts, its current profile, and the first call to the server."""

from __future__ import annotations

import logging
import math
import shutil
import uuid
from dataclasses import dataclass
from typing import Any

from fedcore.errors import ServerRefused, ServerUnavailable, Stopped
from fedcore.hardware.machines import recognise
from workers.agent.agent_errors import Revoked
from workers.agent.agent_settings import VERSION, AgentSettings
from workers.agent.control.supervisor import StopRequest
from workers.agent.http.retry import keep_trying
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.http.throttle import LinkThrottle
from workers.agent.profile import local_datasets, probe
from workers.agent.state.credentials import DeviceCredential
from workers.agent.state.database import StateDatabase
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import SharedState
from workers.agent.telemetry.sender import CLOCK_NOTE, mark_cancelled

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Agent:
    """The parts of one start of the agent."""

    settings: AgentSettings
    credential: DeviceCredential
    boot_id: str
    server: ServerApi
    outbox: Outbox
    shared_state: SharedState
    stop: StopRequest
    throttle: LinkThrottle | None = None

    @property
    def address(self) -> Address:
        credential = self.credential
        return Address(
            credential.server, credential.api_token, self.settings.ca_file, self.throttle
        )

    def check(self) -> None:
        """Raises Stopped once the agent must end."""
        if self.stop.requested:
            raise Stopped(self.stop.reason)

    def server_clock_offset_s(self) -> float:
        """In the training process: the parent's latest offset of the server's clock."""
        self.server.clock.offset_s = float(self.shared_state.read_note(CLOCK_NOTE) or 0.0)
        return self.server.clock.offset_s


def assemble(
    settings: AgentSettings,
    credential: DeviceCredential,
    stop: StopRequest,
    throttle: LinkThrottle | None,
) -> Agent:
    """Create the parts, and clear what an earlier start left in the state folder."""
    database = StateDatabase(settings.database)
    shared_state = SharedState(database)
    shared_state.wipe()
    shutil.rmtree(settings.state_dir / "updates", ignore_errors=True)
    address = Address(credential.server, credential.api_token, settings.ca_file, throttle)
    return Agent(
        settings,
        credential,
        uuid.uuid4().hex,
        ServerApi(address),
        Outbox(database),
        shared_state,
        stop,
        throttle,
    )


def current_profile(agent: Agent) -> dict[str, Any]:
    """The stored profile, and values that may differ at each start."""
    profile = probe.profile(agent.settings)
    link = agent.throttle.name if agent.throttle else ""
    if link:
        log.warning("transfers are slowed down to those of a link %r: see --link", link)
    board = recognise(profile)  # the table may have grown since the measurement
    current = {"board": board.id if board else "", "link": link}
    return {**profile, **current, "power_sensor": probe.power_sensor(profile)}


def say_hello(agent: Agent, profile: dict[str, Any]) -> dict[str, Any]:
    """Register this start at the server; returns the server's answer."""
    settings = agent.settings
    body = {
        "boot_id": agent.boot_id,
        "agent_version": VERSION,
        "profile": profile,
        "datasets": local_datasets.describe_again(settings.state_dir, settings.cache),
    }
    log.info("%s is connecting to %s", agent.credential.name, agent.credential.server)

    def call() -> dict[str, Any]:
        try:
            return agent.server.hello(body)
        except Revoked:
            raise
        except ServerRefused as refusal:  # perhaps from a proxy; the agent keeps trying
            raise ServerUnavailable(str(refusal)) from refusal

    answer = keep_trying(call, math.inf, agent.check, "saying hello")
    agent.outbox.continue_from(int(answer.get("next_sample_seq") or 1))
    agent.shared_state.write_note("last_contact", agent.server.clock.iso())
    agent.shared_state.write_note(CLOCK_NOTE, repr(agent.server.clock.offset_s))
    mark_cancelled(answer, agent.shared_state)
    return answer

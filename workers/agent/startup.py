"""Starting the agent: its parts, its current profile, and its hello."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import uuid
from dataclasses import dataclass
from typing import Any

from msgspec import Raw

from fedcore.formats.line_bodies import MAX_OBJECT_BYTES, Hello
from fedcore.formats.line_messages import body_of
from fedcore.hardware.machines import recognise
from workers.agent.agent_settings import VERSION, AgentSettings
from workers.agent.control.supervisor import StopRequest
from workers.agent.http.server_api import Address
from workers.agent.http.server_clock import Clock
from workers.agent.http.throttle import LinkThrottle
from workers.agent.profile import local_datasets, probe
from workers.agent.state.credentials import DeviceCredential
from workers.agent.state.database import StateDatabase
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import SharedState
from workers.agent.state.site_key import SiteKey

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Agent:
    """The parts of one start of the agent."""

    settings: AgentSettings
    credential: DeviceCredential
    boot_id: str
    clock: Clock
    outbox: Outbox
    shared_state: SharedState
    stop: StopRequest
    site_key: SiteKey
    throttle: LinkThrottle | None = None

    @property
    def address(self) -> Address:
        credential = self.credential
        return Address(
            credential.server,
            credential.api_token,
            self.settings.ca_file,
            self.throttle,
            self.site_key,
        )


def assemble(
    settings: AgentSettings,
    credential: DeviceCredential,
    stop: StopRequest,
    throttle: LinkThrottle | None,
) -> Agent:
    """Create the parts, and clear what an earlier start left in the state folder."""
    database = StateDatabase(settings.database)
    shared_state = SharedState(database)
    try:
        shared_state.wipe()
    except sqlite3.Error as error:  # it connects, says so, and waits until that is mended
        log.error("%s cannot be written: %s", settings.database, error)
    shutil.rmtree(settings.state_dir / "updates", ignore_errors=True)
    return Agent(
        settings,
        credential,
        uuid.uuid4().hex,
        Clock(),
        Outbox(database),
        shared_state,
        stop,
        SiteKey(credential.public_key, settings.state_dir),
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


def hello_of(agent: Agent, profile: dict[str, Any]) -> Raw:
    """The hello of every line of this start."""
    settings = agent.settings
    datasets = local_datasets.describe_again(settings.state_dir, settings.cache)
    if len(bytes(body_of(datasets))) > MAX_OBJECT_BYTES:
        log.warning("the datasets have too many columns; the server learns only their sizes")
        datasets = [{**item, "columns": []} for item in datasets]
    return body_of(Hello(agent.boot_id, VERSION, body_of(profile), body_of(datasets)))

"""Joining a server with a one-time token, and leaving it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from fedcore.errors import ServerRefused, ServerUnavailable
from workers.agent.agent_errors import AgentError, Revoked
from workers.agent.agent_settings import VERSION, AgentSettings
from workers.agent.http.server_api import Address, ServerApi, check_url, is_private
from workers.agent.http.server_clock import Clock
from workers.agent.profile import local_datasets, probe
from workers.agent.state import credential as credentials
from workers.agent.state.credential import DeviceCredential
from workers.agent.state.database import StateDatabase
from workers.agent.state.lock import holder_of
from workers.agent.state.outbox import Outbox

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What a person typed."""

    server: str
    token: str = field(repr=False)
    name: str = ""
    datasets: tuple[str, ...] = ()
    force: bool = False


def enrol(settings: AgentSettings, asked: Asked) -> DeviceCredential:
    """Measure, describe, join. Everything that can be wrong here is found before the token goes."""
    url = check_url(asked.server)
    known = credentials.load(settings.state_dir)
    if known and not asked.force:
        raise AgentError(
            f"this device is enrolled already, as {known.name!r} at {known.server}; unenroll "
            "first, give --force, or another --state-dir"
        )
    if holder_of(settings.state_dir):
        raise AgentError("the agent runs on this state folder; stop it before enrolling")
    if not is_private(url):
        log.warning("%s is not https: the credential travels readable for everybody between", url)
    held = local_datasets.parse_all(asked.datasets)
    body = {
        "token": asked.token,
        "name": asked.name,
        "agent_version": VERSION,
        "datasets": local_datasets.describe_all(settings.state_dir, held, settings.cache),
        "profile": probe.profile(settings),
    }
    server = ServerApi(Address(url, ca_file=settings.ca_file))
    try:
        answer = server.enrol(body)
    except (ServerRefused, ServerUnavailable) as error:
        raise AgentError(f"{url} did not enrol this device: {error}") from error
    found = credentials.from_enrolment(url, answer, Clock().iso())
    credentials.save(settings.state_dir, found)
    Outbox(StateDatabase(settings.database)).clear()
    return found


def leave(settings: AgentSettings, force: bool) -> str:
    """Give the credential back; returns what was done."""
    known = credentials.require(settings.state_dir)
    server = ServerApi(Address(known.server, known.api_token, settings.ca_file))
    try:
        server.unenrol()
        said = f"{known.name!r} has left {known.server}"
    except Revoked:
        said = f"{known.server} had revoked {known.name!r} already"
    except (ServerRefused, ServerUnavailable) as error:
        if not force:
            raise AgentError(
                f"{known.server} could not be told: {error}. Try again, or give --force and "
                "revoke the device there"
            ) from error
        said = f"{known.server} could not be told ({error}): revoke {known.name!r} there"
    credentials.forget(settings.state_dir)
    return f"{said}; the credential is removed from {settings.state_dir}"

"""Enrolling at a server with a one-time token, and leaving it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from fedcore.errors import ServerRefused, ServerUnavailable
from workers.agent.agent_errors import AgentError, Revoked
from workers.agent.agent_settings import VERSION, AgentSettings
from workers.agent.http.server_api import Address, ServerApi, check_url, protects_credentials
from workers.agent.http.server_clock import Clock
from workers.agent.profile import local_datasets, probe
from workers.agent.state import credentials
from workers.agent.state.credentials import DeviceCredential
from workers.agent.state.database import StateDatabase
from workers.agent.state.lock import holder_of
from workers.agent.state.outbox import Outbox
from workers.agent.state.site_key import SiteKey

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnrolmentOptions:
    """Options of the ``enroll`` command."""

    server: str
    token: str = field(repr=False)
    name: str = ""
    datasets: tuple[str, ...] = ()
    force: bool = False


def enrol(settings: AgentSettings, options: EnrolmentOptions) -> DeviceCredential:
    """Measure the device and enrol it. All local checks come before the token is used."""
    url = check_url(options.server)
    current = credentials.load(settings.state_dir)
    if current and not options.force:
        raise AgentError(
            f"this device is already enrolled as {current.name!r} at {current.server}; unenroll "
            "first, or give --force or another --state-dir"
        )
    if holder_of(settings.state_dir):
        raise AgentError("the agent is running on this state folder; stop it before enrolling")
    if not protects_credentials(url):
        log.warning("%s is not https: everybody on the way can read the credential", url)
    datasets = local_datasets.parse_all(options.datasets)
    body = {
        "token": options.token,
        "name": options.name,
        "agent_version": VERSION,
        "datasets": local_datasets.describe_all(settings.state_dir, datasets, settings.cache),
        "profile": probe.profile(settings),
    }
    server = ServerApi(Address(url, ca_file=settings.ca_file))
    try:
        answer = server.enrol(body)
    except (ServerRefused, ServerUnavailable) as error:
        raise AgentError(f"{url} did not enrol this device: {error}") from error
    credential = credentials.from_enrolment(url, answer, Clock().iso())
    credentials.save(settings.state_dir, credential)
    Outbox(StateDatabase(settings.database)).clear()
    return credential


def leave(settings: AgentSettings, force: bool) -> str:
    """Give up the credential; returns a sentence about what was done."""
    credential = credentials.require(settings.state_dir)
    name, url = credential.name, credential.server
    key = SiteKey(credential.public_key)
    server = ServerApi(Address(url, credential.api_token, settings.ca_file, key=key))
    try:
        server.unenrol()
        result = f"{name!r} has left {url}"
    except Revoked:
        result = f"{url} had already revoked {name!r}"
    except (ServerRefused, ServerUnavailable) as error:
        if not force:
            raise AgentError(
                f"cannot reach {url}: {error}. Try again, or give --force and revoke the device "
                "on the server"
            ) from error
        result = f"cannot reach {url} ({error}): revoke {name!r} there"
    credentials.forget(settings.state_dir)
    return f"{result}; removed the credential from {settings.state_dir}"

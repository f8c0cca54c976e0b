"""The device's credential from enrolment, in a file that only its owner can read."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from workers.agent.agent_errors import AgentError
from workers.agent.state.files import read_json, write_json

FILE = "credential.json"


@dataclass(frozen=True)
class DeviceCredential:
    """Secrets are left out of the repr, so that no log line shows them."""

    server: str
    device_id: int
    name: str
    role: str
    queue: str
    key_prefix: str
    enrolled_at: str
    api_token: str = field(repr=False)
    broker_url: str = field(repr=False)
    signing_public_key: str = field(repr=False)

    @property
    def public_key(self) -> bytes:
        return base64.b64decode(self.signing_public_key)


def from_enrolment(server: str, answer: Mapping[str, Any], enrolled_at: str) -> DeviceCredential:
    """Parse the server's answer to an enrolment; raises AgentError where it is malformed."""
    try:
        device, broker = answer["device"], answer["broker"]
        credential = DeviceCredential(
            server=server,
            device_id=int(device["id"]),
            name=str(device["name"]),
            role=str(device["role"]),
            queue=str(broker["queue"]),
            key_prefix=str(broker["key_prefix"]),
            enrolled_at=enrolled_at,
            api_token=str(answer["api_token"]),
            broker_url=str(broker["url"]),
            signing_public_key=str(answer["signing_public_key"]),
        )
        valid_key = len(credential.public_key) == 32
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise AgentError(f"{server} sent no enrolment answer; is it an Edgewise server?") from error
    if not valid_key:
        raise AgentError(f"{server} sent no valid signing key; update the server and the agent")
    return credential


def with_addresses(
    credential: DeviceCredential, server: str = "", broker: str = ""
) -> DeviceCredential:
    """The credential at new addresses; ``broker`` has neither user nor password."""
    if server:
        credential = replace(credential, server=server)
    if broker:
        user_info = urlsplit(credential.broker_url).netloc.rpartition("@")[0]
        parts = urlsplit(broker)
        host = parts.netloc.rpartition("@")[2]
        url = urlunsplit(parts._replace(netloc=f"{user_info}@{host}"))
        credential = replace(credential, broker_url=url)
    return credential


def save(state_dir: Path, credential: DeviceCredential) -> None:
    write_json(state_dir / FILE, asdict(credential))


def load(state_dir: Path) -> DeviceCredential | None:
    """The stored credential; None where this device is not enrolled."""
    path = state_dir / FILE
    if not path.exists():
        return None
    try:
        values = read_json(path)
        return DeviceCredential(**values)
    except (OSError, TypeError) as error:
        raise AgentError(
            f"{path} cannot be read ({error}); remove it and enrol this device again"
        ) from error


def require(state_dir: Path) -> DeviceCredential:
    credential = load(state_dir)
    if credential is None:
        raise AgentError(
            f"this device is not enrolled (no credential in {state_dir}); run "
            "`python -m workers.agent enroll --server URL --token TOKEN` first"
        )
    return credential


def forget(state_dir: Path) -> None:
    (state_dir / FILE).unlink(missing_ok=True)

"""The device's credential from enrolment, in a file that only its owner can read."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

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
    enrolled_at: str
    api_token: str = field(repr=False)
    signing_public_key: str = field(repr=False)

    @property
    def public_key(self) -> bytes:
        return base64.b64decode(self.signing_public_key)


def from_enrolment(server: str, answer: Mapping[str, Any], enrolled_at: str) -> DeviceCredential:
    """Parse the server's answer to an enrolment; raises AgentError where it is malformed."""
    try:
        device = answer["device"]
        credential = DeviceCredential(
            server=server,
            device_id=int(device["id"]),
            name=str(device["name"]),
            role=str(device["role"]),
            enrolled_at=enrolled_at,
            api_token=str(answer["api_token"]),
            signing_public_key=str(answer["signing_public_key"]),
        )
        valid_key = len(credential.public_key) == 32
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise AgentError(f"{server} sent no enrolment answer; is it an Edgewise server?") from error
    if not valid_key:
        raise AgentError(f"{server} sent no valid signing key; update the server and the agent")
    return credential


def parse(values: Mapping[str, Any]) -> DeviceCredential:
    """Stored values; those of earlier versions, such as a broker's address, are left out."""
    names = {item.name for item in fields(DeviceCredential)}
    return DeviceCredential(**{key: item for key, item in values.items() if key in names})


def save(state_dir: Path, credential: DeviceCredential) -> None:
    write_json(state_dir / FILE, asdict(credential))


def change(state_dir: Path, **values: Any) -> None:
    """Replace some values of the stored credential."""
    save(state_dir, replace(require(state_dir), **values))


def load(state_dir: Path) -> DeviceCredential | None:
    """The stored credential; None where this device is not enrolled."""
    path = state_dir / FILE
    if not path.exists():
        return None
    try:
        return parse(read_json(path))
    except (OSError, TypeError, AttributeError) as error:
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

"""The upgrade request of a line on a real site: who is let in, and what the others are answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import websockets
from websockets.sync.client import connect

from tests.conftest import Enrolled
from tests.line.clients import MANY_OPENINGS, LineClient, open_socket
from tests.line.site import Site
from webapp.accounts.models import User, create_token
from webapp.devices.models import Device
from webapp.jobs.lifecycle import enrolment

pytestmark = pytest.mark.slow


def refusal(site: Site, authorization: str | None, **options: Any) -> tuple[int, str]:
    """Status and reason of the problem document that answers an upgrade request."""
    with (
        pytest.raises(websockets.InvalidStatus) as refused,
        open_socket(site, authorization, **options),
    ):
        pass
    response = refused.value.response
    assert response.headers["Content-Type"] == "application/problem+json"
    document = json.loads(response.body or b"")
    assert document["status"] == response.status_code
    return response.status_code, document["detail"]


@pytest.mark.parametrize("authorization", [None, "", "Device", "Basic eDp4", "device x"])
def test_upgrade_without_credential(site: Site, authorization: str | None) -> None:
    status, detail = refusal(site, authorization)
    assert status == 401
    assert "credential is unknown" in detail


def test_upgrade_with_a_revoked_credential(
    site: Site, enrolled_device: Callable[..., Enrolled]
) -> None:
    pi = enrolled_device()
    enrolment.revoke(pi.device, None)
    for token in (pi.api_token, "nonsense"):
        status, detail = refusal(site, f"Device {token}")
        assert status == 401
        assert "revoked; enrol the device again" in detail


def test_upgrade_with_a_persons_token(site: Site, admin: User) -> None:
    _, token = create_token(admin, "mine")
    assert refusal(site, f"Token {token}")[0] == 401
    assert refusal(site, f"Device {token}")[0] == 401


@pytest.mark.parametrize("versions", [None, ["edgewise.line.0"], ["edgewise.line.99", "chat"]])
def test_upgrade_with_an_unknown_version(
    site: Site, enrolled_device: Callable[..., Enrolled], versions: list[str] | None
) -> None:
    token = f"Device {enrolled_device().api_token}"
    status, detail = refusal(site, token, subprotocols=versions)
    assert status == 426
    assert "update the older one" in detail
    assert Device.objects.get().line_epoch == 0, "no line was opened"


def test_lines_that_open_too_often(site: Site, enrolled_device: Callable[..., Enrolled]) -> None:
    """The newest line goes on, and so do other devices."""
    pi = enrolled_device()
    with ExitStack() as lines:
        with pytest.raises(websockets.InvalidStatus) as refused:
            for _ in range(MANY_OPENINGS):
                newest = lines.enter_context(LineClient(site, pi.api_token))
        assert refused.value.response.status_code == 429
        assert "wait a minute" in json.loads(refused.value.response.body or b"")["detail"]
        newest.hello()
        assert newest.call("health", disk_free_bytes=7).ack
        with LineClient(site, enrolled_device("pi-porch").api_token) as other:
            other.hello()


def test_newest_known_version_is_chosen(
    site: Site, enrolled_device: Callable[..., Enrolled]
) -> None:
    offered = ["edgewise.line.99", "edgewise.line.1"]
    with LineClient(site, enrolled_device().api_token, subprotocols=offered) as line:
        assert line.socket.subprotocol == "edgewise.line.1"
        assert line.hello()["name"] == "pi-kitchen"


def test_log_names_refused_devices_alone(
    site: Site, enrolled_device: Callable[..., Enrolled]
) -> None:
    """An upgrade that is refused is worth a line, ten thousand that are accepted are not."""
    before = len(site.log())
    with LineClient(site, enrolled_device().api_token) as line:
        line.hello()
    refusal(site, "Device nonsense")
    lines = [line for line in site.log()[before:].splitlines() if line]
    assert len(lines) == 1, lines
    assert lines[0].endswith('"WebSocket /ws/device/" 401')


def test_other_sockets_stay_with_the_pages(site: Site) -> None:
    """An anonymous page is refused by its own rules, not by those of a device."""
    page = site.url().replace("/ws/device/", "/ws/fleet/")
    with pytest.raises(websockets.InvalidStatus) as refused, connect(page, proxy=None):
        pass
    assert refused.value.response.status_code == 403

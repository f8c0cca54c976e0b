"""Agents of another version are refused, and their device's page says what to update."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import websockets

from tests.conftest import Enrolled
from tests.line.clients import LineClient, open_socket
from tests.line.site import Site
from webapp.devices.models import Device

pytestmark = pytest.mark.slow

UPDATE_AGENT = "update its agent: this site needs a newer one"


@pytest.mark.parametrize(
    ("versions", "text"),
    [
        (["edgewise.line.0"], UPDATE_AGENT),
        (None, UPDATE_AGENT),
        (["edgewise.line.9", "chat"], "update this site: the device's agent is newer"),
    ],
)
def test_refused_version_is_shown_until_a_line_opens(
    site: Site, enrolled_device: Callable[..., Enrolled], versions: list[str] | None, text: str
) -> None:
    token = enrolled_device("pi-kitchen").api_token
    Device.objects.update(last_seen_at=None)
    for name in (token, "of nobody"):
        with (
            pytest.raises(websockets.InvalidStatus) as refused,
            open_socket(site, f"Device {name}", subprotocols=versions),
        ):
            pass
        assert refused.value.response.status_code == 426
    assert str(Device.objects.get().ability) == text
    with LineClient(site, token) as line:
        line.hello()
        assert Device.objects.get().ability is None
    Device.objects.update(last_seen_at=None)
    assert Device.objects.get().ability is None, "it has been updated since"


def test_agent_from_before_the_line_is_shown(enrolled_device: Callable[..., Enrolled]) -> None:
    enrolled = enrolled_device("pi-kitchen")
    Device.objects.update(last_seen_at=None)
    answer = enrolled.client.post("/api/v1/device/hello/", {}, format="json")
    assert answer.status_code == 426
    assert str(Device.objects.get().ability) == UPDATE_AGENT

"""WebSockets: access, messages, malformed input."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser

from tests.web import factories
from webapp.accounts.models import Role, User
from webapp.common.wake import job_group
from webapp.jobs.models import Job
from webapp.pages.live import consumers
from webapp.pages.live.routing import websocket_urlpatterns

pytestmark = pytest.mark.django_db(transaction=True)
START = json.dumps({"cursors": {"events": 0, "samples": {}}})


def socket_for(path: str, user: User | AnonymousUser) -> WebsocketCommunicator:
    socket = WebsocketCommunicator(URLRouter(websocket_urlpatterns), path)
    socket.scope["user"] = user
    return socket


@sync_to_async
def user_and_job() -> tuple[User, Job]:
    devices = factories.make_fleet(2)
    job = factories.running_job(devices, rounds=1, samples=4)
    return factories.make_user("vera", Role.VIEWER), job


async def receive(socket: WebsocketCommunicator, kind: str = "update") -> dict[str, Any]:
    """The next message of that type."""
    for _ in range(20):
        message: dict[str, Any] = json.loads(await socket.receive_from(5))
        if message["type"] == kind:
            return message
    raise AssertionError(f"no {kind} came")


@pytest.mark.parametrize("path", ["/ws/fleet/", "/ws/devices/1/"])
async def test_anonymous_sockets_are_refused(path: str) -> None:
    socket = socket_for(path, AnonymousUser())
    connected, _ = await socket.connect()
    assert not connected


async def test_deactivated_users_are_refused() -> None:
    user, job = await user_and_job()
    user.is_active = False
    connected, _ = await socket_for(f"/ws/jobs/{job.pk}/", user).connect()
    assert not connected


async def test_socket_sends_history_then_news() -> None:
    user, job = await user_and_job()
    socket = socket_for(f"/ws/jobs/{job.pk}/", user)
    assert (await socket.connect())[0]
    await socket.send_to(START)
    first = await receive(socket)
    assert first["snapshot"]["name"] == "clinic notes"
    assert len(first["samples"]) == 2 * 14
    await sync_to_async(factories.grow)(job, 3)
    layer = get_channel_layer()
    await layer.group_send(job_group(job.pk), {"type": "wake"})
    message = await receive(socket)
    while not message["samples"]:
        message = await receive(socket)
    assert len(message["samples"]) == 6
    await socket.disconnect()


async def test_wake_ups_are_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    user, job = await user_and_job()
    socket = socket_for(f"/ws/jobs/{job.pk}/", user)
    await socket.connect()
    await socket.send_to(START)
    await receive(socket)
    layer = get_channel_layer()
    for _ in range(40):
        await sync_to_async(factories.grow)(job, 1)
        await layer.group_send(job_group(job.pk), {"type": "wake"})
    messages, points = 0, 0
    while points < 80:
        points += len((await receive(socket))["samples"])
        messages += 1
    assert points == 80
    assert messages < 40, "fewer than there were wake-ups"
    await socket.disconnect()


async def test_device_and_fleet_sockets_answer() -> None:
    user, job = await user_and_job()
    device = await job.participants.afirst()
    for path in (f"/ws/devices/{device.device_id}/", "/ws/fleet/"):
        socket = socket_for(path, user)
        assert (await socket.connect())[0]
        await socket.send_to(START)
        assert (await receive(socket))["type"] == "update"
        await socket.disconnect()


@pytest.mark.parametrize(
    "nonsense",
    [
        "hello",
        "[]",
        "null",
        "{}",
        '{"cursors": 3}',
        '{"cursors": {"events": "x"}}',
        '{"cursors": {"events": -1}}',
        '{"cursors": {"events": 1e400}}',
        '{"cursors": {"events": true}}',
        '{"cursors": {"samples": [1]}}',
        '{"cursors": {"samples": {"a": 1}}}',
        '{"cursors": {"samples": {"1": 99999999999999999999999}}}',
        '{"cursors": {"samples": {"1": {}}}}',
        "[" * 5000,
        "\u0000",
    ],
)
async def test_bad_message_gets_an_error_and_stays_connected(nonsense: str, caplog: Any) -> None:
    user, job = await user_and_job()
    socket = socket_for(f"/ws/jobs/{job.pk}/", user)
    await socket.connect()
    await socket.send_to(nonsense)
    assert (await receive(socket, "error"))["message"]
    await socket.send_to(START)
    assert await receive(socket)
    assert "Traceback" not in caplog.text
    await socket.disconnect()


async def test_repeated_bad_messages_close_the_socket() -> None:
    user, job = await user_and_job()
    socket = socket_for(f"/ws/jobs/{job.pk}/", user)
    await socket.connect()
    await socket.send_to(bytes_data=b"\x00\xff")
    assert "text" in (await receive(socket, "error"))["message"]
    await socket.send_to(START)
    await receive(socket)
    await socket.send_to(START)
    assert "once" in (await receive(socket, "error"))["message"]
    for _ in range(3):
        await socket.send_to("x")
    closed = await socket.receive_output(5)
    while closed["type"] != "websocket.close":
        closed = await socket.receive_output(5)
    assert closed["code"] == consumers.CLOSE_BAD_MESSAGES


async def test_oversized_message_closes_the_socket() -> None:
    user, job = await user_and_job()
    socket = socket_for(f"/ws/jobs/{job.pk}/", user)
    await socket.connect()
    await socket.send_to("x" * (consumers.MAX_MESSAGE_BYTES + 1))
    assert (await socket.receive_output(5))["code"] == consumers.CLOSE_TOO_BIG


async def test_deleted_job_closes_the_socket() -> None:
    user, _ = await user_and_job()
    socket = socket_for("/ws/jobs/00000000-0000-0000-0000-000000000000/", user)
    await socket.connect()
    await socket.send_to(START)
    assert "has been deleted" in (await receive(socket, "error"))["message"]
    assert (await socket.receive_output(5))["code"] == consumers.CLOSE_DELETED


async def test_database_errors_are_reported_and_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    user, job = await user_and_job()
    calls = []
    real = consumers.JobReader.read

    def flaky(reader: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("the disk is on fire")
        return real(reader)

    monkeypatch.setattr(consumers.JobReader, "read", flaky)
    monkeypatch.setattr(consumers, "POLL_INTERVAL_S", 0.1)
    socket = socket_for(f"/ws/jobs/{job.pk}/", user)
    await socket.connect()
    await socket.send_to(START)
    error = await receive(socket, "error")
    assert "fire" not in error["message"]
    assert await receive(socket)
    await socket.disconnect()


async def test_logout_closes_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    user, job = await user_and_job()
    monkeypatch.setattr(consumers, "CHECK_ACCESS_S", 0.0)
    monkeypatch.setattr(consumers, "POLL_INTERVAL_S", 0.1)
    socket = socket_for(f"/ws/jobs/{job.pk}/", user)
    await socket.connect()
    await socket.send_to(START)
    await receive(socket)
    await User.objects.filter(pk=user.pk).aupdate(is_active=False)
    closed = await socket.receive_output(5)
    while closed["type"] != "websocket.close":
        closed = await socket.receive_output(5)
    assert closed["code"] == consumers.CLOSE_SIGNED_OUT

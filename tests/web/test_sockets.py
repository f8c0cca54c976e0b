"""The sockets: who may, what comes, and what happens to nonsense."""

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


def dial(path: str, user: User | AnonymousUser) -> WebsocketCommunicator:
    made = WebsocketCommunicator(URLRouter(websocket_urlpatterns), path)
    made.scope["user"] = user
    return made


@sync_to_async
def scene() -> tuple[User, Job]:
    devices = factories.make_fleet(2)
    job = factories.running_job(devices, rounds=1, samples=4)
    return factories.make_user("vera", Role.VIEWER), job


async def hear(line: WebsocketCommunicator, kind: str = "update") -> dict[str, Any]:
    """The next message of that kind."""
    for _ in range(20):
        message: dict[str, Any] = json.loads(await line.receive_from(5))
        if message["type"] == kind:
            return message
    raise AssertionError(f"no {kind} came")


@pytest.mark.parametrize("path", ["/ws/fleet/", "/ws/devices/1/"])
async def test_strangers_are_refused(path: str) -> None:
    line = dial(path, AnonymousUser())
    connected, _ = await line.connect()
    assert not connected


async def test_people_who_are_switched_off_are_refused() -> None:
    user, job = await scene()
    user.is_active = False
    connected, _ = await dial(f"/ws/jobs/{job.pk}/", user).connect()
    assert not connected


async def test_a_page_gets_everything_and_then_what_comes() -> None:
    user, job = await scene()
    line = dial(f"/ws/jobs/{job.pk}/", user)
    assert (await line.connect())[0]
    await line.send_to(START)
    first = await hear(line)
    assert first["snapshot"]["name"] == "clinic notes"
    assert len(first["samples"]) == 2 * 14
    await sync_to_async(factories.grow)(job, 3)
    layer = get_channel_layer()
    await layer.group_send(job_group(job.pk), {"type": "wake"})
    message = await hear(line)
    while not message["samples"]:
        message = await hear(line)
    assert len(message["samples"]) == 6
    await line.disconnect()


async def test_wake_ups_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    user, job = await scene()
    line = dial(f"/ws/jobs/{job.pk}/", user)
    await line.connect()
    await line.send_to(START)
    await hear(line)
    layer = get_channel_layer()
    for _ in range(40):
        await sync_to_async(factories.grow)(job, 1)
        await layer.group_send(job_group(job.pk), {"type": "wake"})
    messages, points = 0, 0
    while points < 80:
        points += len((await hear(line))["samples"])
        messages += 1
    assert points == 80
    assert messages < 30
    await line.disconnect()


async def test_device_and_fleet_sockets_answer() -> None:
    user, job = await scene()
    device = await job.participants.afirst()
    for path in (f"/ws/devices/{device.device_id}/", "/ws/fleet/"):
        line = dial(path, user)
        assert (await line.connect())[0]
        await line.send_to(START)
        assert (await hear(line))["type"] == "update"
        await line.disconnect()


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
async def test_nonsense_gets_an_error_and_the_line_stays(nonsense: str, caplog: Any) -> None:
    user, job = await scene()
    line = dial(f"/ws/jobs/{job.pk}/", user)
    await line.connect()
    await line.send_to(nonsense)
    assert (await hear(line, "error"))["message"]
    await line.send_to(START)
    assert await hear(line)
    assert "Traceback" not in caplog.text
    await line.disconnect()


async def test_bytes_repeats_and_endless_nonsense() -> None:
    user, job = await scene()
    line = dial(f"/ws/jobs/{job.pk}/", user)
    await line.connect()
    await line.send_to(bytes_data=b"\x00\xff")
    assert "text" in (await hear(line, "error"))["message"]
    await line.send_to(START)
    await hear(line)
    await line.send_to(START)
    assert "once" in (await hear(line, "error"))["message"]
    for _ in range(3):
        await line.send_to("x")
    closed = await line.receive_output(5)
    while closed["type"] != "websocket.close":
        closed = await line.receive_output(5)
    assert closed["code"] == consumers.CLOSE_BAD_MESSAGES


async def test_a_huge_message_closes_the_line() -> None:
    user, job = await scene()
    line = dial(f"/ws/jobs/{job.pk}/", user)
    await line.connect()
    await line.send_to("x" * (consumers.MAX_MESSAGE_BYTES + 1))
    assert (await line.receive_output(5))["code"] == consumers.CLOSE_TOO_BIG


async def test_a_job_that_is_gone_says_so() -> None:
    user, _ = await scene()
    line = dial("/ws/jobs/00000000-0000-0000-0000-000000000000/", user)
    await line.connect()
    await line.send_to(START)
    assert "has been deleted" in (await hear(line, "error"))["message"]
    assert (await line.receive_output(5))["code"] == consumers.CLOSE_DELETED


async def test_a_failing_database_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    user, job = await scene()
    calls = []
    real = consumers.JobReader.read

    def flaky(reader: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("the disk is on fire")
        return real(reader)

    monkeypatch.setattr(consumers.JobReader, "read", flaky)
    monkeypatch.setattr(consumers, "POLL_INTERVAL_S", 0.1)
    line = dial(f"/ws/jobs/{job.pk}/", user)
    await line.connect()
    await line.send_to(START)
    error = await hear(line, "error")
    assert "fire" not in error["message"]
    assert await hear(line)
    await line.disconnect()


async def test_logging_out_ends_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    user, job = await scene()
    monkeypatch.setattr(consumers, "CHECK_ACCESS_S", 0.0)
    monkeypatch.setattr(consumers, "POLL_INTERVAL_S", 0.1)
    line = dial(f"/ws/jobs/{job.pk}/", user)
    await line.connect()
    await line.send_to(START)
    await hear(line)
    await User.objects.filter(pk=user.pk).aupdate(is_active=False)
    closed = await line.receive_output(5)
    while closed["type"] != "websocket.close":
        closed = await line.receive_output(5)
    assert closed["code"] == consumers.CLOSE_SIGNED_OUT

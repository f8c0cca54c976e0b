"""The device's line against a real WebSocket server: cuts, silence, proxies, refusals."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest

from fedcore.formats.line_bodies import UpKind
from fedcore.formats.line_messages import (
    HELLO_AGAIN,
    MALFORMED,
    REPLACED,
    Message,
    MessageError,
    body_of,
)
from tests.agent.conftest import slack
from tests.agent.lines import Recorder, measured, until
from tests.agent.stand_in import StandIn
from workers.agent.line.device_line import Line


def steps(server: StandIn) -> list[int]:
    return [body["activity"]["step"] for kind, body in server.frames if kind == "measurements"]


async def test_frames_are_answered_in_their_order(
    open_to: Callable[..., Line], server: StandIn, recorder: Recorder
) -> None:
    line = open_to(server.url)
    calls = [
        asyncio.create_task(line.call(UpKind.MEASUREMENTS, measured(number)))
        for number in range(20)
    ]
    unknown = {"assignment": "00000000-0000-0000-0000-000000000000", "reason": "no"}
    refused = await line.call(UpKind.REFUSE, unknown)
    assert (refused.status, json.loads(bytes(refused.body))) == (
        404,
        {"detail": "no such assignment"},
    )
    assert all(answer.succeeded for answer in await asyncio.gather(*calls))
    assert server.frames[0][0] == "hello" and steps(server) == list(range(20))
    assert recorder.greetings[0].device_id == 7
    assert line.is_connected and line.problem == "" and line.traffic.rtt_s


async def test_frames_of_the_site_are_acknowledged(
    open_to: Callable[..., Line], server: StandIn, recorder: Recorder
) -> None:
    line = open_to(server.url)
    await until(lambda: line.is_connected)
    for number in range(3):
        server.line.push("offer", {"body": f"{number}", "signature": "s"})
    server.line.push("interval", {"interval_s": 5})
    server.line.push("of a later version", {})
    server.line.push("interval", {"interval_s": -5})
    await until(lambda: server.line.acknowledged == 6)
    assert [kind.value for kind, _ in recorder.frames] == ["offer"] * 3 + ["interval"]
    assert [body.body for kind, body in recorder.frames[:3]] == ["0", "1", "2"]  # type: ignore[union-attr]


async def test_frame_out_of_order_ends_the_line(
    open_to: Callable[..., Line], server: StandIn
) -> None:
    line = open_to(server.url)
    await until(lambda: line.is_connected)
    server.line.send(Message(n=2, kind="interval", body=body_of({"interval_s": 5})))
    await until(lambda: len(server.hellos) == 2)
    server.line.send_text(b"{nonsense")
    await until(lambda: "cannot read a message of the site" in line.problem)


async def test_frame_that_cannot_be_stored_is_not_acknowledged(
    open_to: Callable[..., Line], server: StandIn, recorder: Recorder
) -> None:
    recorder.is_full = True
    line = open_to(server.url)
    await until(lambda: line.is_connected)
    server.line.push("offer", {"body": "1", "signature": "s"})
    await until(lambda: len(server.hellos) == 2)
    assert server.lines[0].acknowledged == 0


async def test_lost_answer_is_asked_for_again_and_counts_once(
    open_to: Callable[..., Line], server: StandIn
) -> None:
    line = open_to(server.url)
    await until(lambda: line.is_connected)
    offered = server.offer("a job")
    accepted = await line.call(UpKind.ACCEPT, {"assignment": offered.id})
    assert json.loads(bytes(accepted.body))["job_name"] == "a job"
    server.cut_after = ["report"]
    report = {"assignment": offered.id, "update": None, "examples": 5, "metrics": {}}
    later = asyncio.create_task(line.call(UpKind.MEASUREMENTS, measured(1)))
    answer, cut_at = await line.call(UpKind.REPORT, report), time.monotonic()
    assert answer.succeeded and (await later).succeeded
    kinds = [kind for kind, _ in server.frames]
    assert kinds.count("report") == 2 and offered.phase == "reported"
    assert len(server.hellos) == 2
    assert time.monotonic() - cut_at < 0.5 * slack(), "a healthy line is opened again at once"


async def test_waiting_frames_keep_their_order_over_cuts(
    open_to: Callable[..., Line], server: StandIn
) -> None:
    line = open_to(server.url)
    await until(lambda: line.is_connected)
    server.line.is_deaf = True
    calls = [
        asyncio.create_task(line.call(UpKind.MEASUREMENTS, measured(number)))
        for number in range(10)
    ]
    await asyncio.sleep(0.1)
    calls.pop(3).cancel()
    server.line.cut()
    assert all(answer.succeeded for answer in await asyncio.gather(*calls))
    assert steps(server) == [0, 1, 2, 4, 5, 6, 7, 8, 9], "nobody waits for the fourth any more"


async def test_silent_line_is_opened_again(open_to: Callable[..., Line], server: StandIn) -> None:
    line = open_to(server.url, silent_s=0.6)
    await until(lambda: line.is_connected)
    for _ in range(6):  # pings are signs of life
        await asyncio.sleep(0.2)
        server.line.ping()
    assert len(server.hellos) == 1
    server.line.is_deaf = True
    call = asyncio.create_task(line.call(UpKind.MEASUREMENTS, measured(1)))
    await until(lambda: len(server.hellos) == 2)
    assert (await call).succeeded


async def test_close_codes_have_words(open_to: Callable[..., Line], server: StandIn) -> None:
    line = open_to(server.url)
    await until(lambda: line.is_connected)
    server.line.close(HELLO_AGAIN)
    await until(lambda: len(server.hellos) == 2)
    await until(lambda: line.is_connected)
    server.line.close(REPLACED)
    await until(lambda: line.problem == "another agent uses this device's credential")
    await asyncio.sleep(0.3)
    assert len(server.hellos) == 2, "two agents must not take the line from each other at once"


async def test_unreadable_frame_is_not_sent_for_ever(
    open_to: Callable[..., Line], server: StandIn
) -> None:
    line = open_to(server.url)
    await until(lambda: line.is_connected)
    server.line.is_deaf = True
    call = asyncio.create_task(line.call(UpKind.MEASUREMENTS, measured(1)))
    await asyncio.sleep(0.05)
    server.line.close(MALFORMED, "no JSON")
    answer = await call
    assert answer.status == 400 and b"no JSON" in bytes(answer.body)


async def test_frame_too_large_and_nul_characters(
    open_to: Callable[..., Line], server: StandIn
) -> None:
    line = open_to(server.url)
    with pytest.raises(MessageError, match="the limit is"):
        await line.call(UpKind.REPORT, {"metrics": "x" * 70_000})
    offered = server.offer("a job")
    assert (await line.call(UpKind.ACCEPT, {"assignment": offered.id})).succeeded
    body = {"assignment": offered.id, "reason": "a\0b", "retryable": True}
    assert (await line.call(UpKind.FAIL, body)).succeeded
    assert offered.failure["reason"] == "a\ufffdb"


async def test_a_line_costs_one_task_and_one_timer(
    open_to: Callable[..., Line], server: StandIn
) -> None:
    before = len(asyncio.all_tasks())
    lines = [open_to(server.url) for _ in range(20)]
    await until(lambda: all(line.is_connected for line in lines))
    assert len(asyncio.all_tasks()) - before == 20

"""A line by WebSocket or long poll, through a proxy that refuses, swallows and cuts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from fedcore.formats.line_bodies import DownBody, DownKind, Hello, HelloAnswer, UpKind
from fedcore.formats.line_messages import body_of
from tests.agent.conftest import AgentProcess, slack, wait_for
from tests.agent.obstacles import ObstacleProxy
from tests.agent.stand_in import StandIn
from tests.agent.stand_in_http import API_TOKEN
from workers.agent.agent_errors import Revoked
from workers.agent.line import poll_channel
from workers.agent.line.channel_choice import OBSTACLES, RETRY_S, Channel, ChannelChoice
from workers.agent.line.device_line import Line, LineOptions
from workers.agent.line.opening import line_site
from workers.agent.line.revocation import Revocation
from workers.agent.state import credentials
from workers.agent.status import as_text

HELLO = body_of(Hello("boot-1"))


class Recorder:
    """The handlers of a line: keeps what came, and each change of the line."""

    def __init__(self) -> None:
        self.greetings: list[HelloAnswer] = []
        self.frames: list[tuple[DownKind, DownBody]] = []
        self.problems: list[str] = []

    def greeted(self, answer: HelloAnswer) -> None:
        self.greetings.append(answer)

    def received(self, kind: DownKind, body: DownBody) -> None:
        self.frames.append((kind, body))

    def connection_changed(self, line: Any) -> None:
        if line.problem:
            self.problems.append(line.problem)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def proxy(server: StandIn) -> Iterator[ObstacleProxy]:
    between = ObstacleProxy(server.port)
    yield between
    between.close()


@pytest.fixture
async def open_line(recorder: Recorder, proxy: ObstacleProxy) -> AsyncIterator[Callable[..., Line]]:
    tasks: list[asyncio.Task[None]] = []

    def start(**options: Any) -> Line:
        line = Line(line_site(proxy.url, API_TOKEN), HELLO, recorder, LineOptions(**options))
        tasks.append(asyncio.create_task(line.run()))
        return line

    yield start
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Revoked):
            await task


async def until(what: Callable[[], Any], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s * slack()
    while not what():
        assert time.monotonic() < end, "did not happen in time"
        await asyncio.sleep(0.01)


def measured(number: int) -> dict[str, Any]:
    return {"activity": {"assignment": None, "phase": "", "step": number}, "samples": []}


def steps(server: StandIn) -> list[int]:
    return [body["activity"]["step"] for kind, body in server.frames if kind == "measurements"]


async def exchange(line: Line, server: StandIn, recorder: Recorder) -> None:
    """Frames both ways: an assignment from its offer to its report, and others beside it."""
    offered = server.offer("a job")
    await until(lambda: [kind for kind, _ in recorder.frames] == [DownKind.OFFER])
    calls = [asyncio.create_task(line.call(UpKind.MEASUREMENTS, measured(n))) for n in range(30)]
    accepted = await line.call(UpKind.ACCEPT, {"assignment": offered.id})
    assert json.loads(bytes(accepted.body))["job_name"] == "a job"
    report = {"assignment": offered.id, "update": None, "examples": 5, "metrics": {}}
    assert (await line.call(UpKind.REPORT, report)).succeeded
    assert all(answer.succeeded for answer in await asyncio.gather(*calls))
    assert steps(server) == list(range(30)), "each once, and in their order"
    assert [kind for kind, _ in server.frames].count("report") == 1
    assert offered.phase == "reported"
    server.line.push("interval", {"interval_s": 5})
    await until(lambda: recorder.frames[-1][0] is DownKind.INTERVAL)


async def test_refused_upgrades_lead_to_a_long_poll(
    open_line: Callable[..., Line], server: StandIn, proxy: ObstacleProxy, recorder: Recorder
) -> None:
    proxy.refuses = True
    line = open_line(websocket_retry_s=2.0)
    await until(lambda: line.is_connected)
    assert line.channel is Channel.POLL and proxy.upgrades == 1
    assert recorder.problems == [
        "something between this device and the site answers 403 to the line; it blocks them"
    ]
    await exchange(line, server, recorder)
    await until(lambda: proxy.upgrades >= 3)  # tried again, and the line goes on meanwhile
    assert line.channel is Channel.POLL and len(server.hellos) == 1
    proxy.refuses = False
    await until(lambda: line.channel is Channel.WEBSOCKET)
    assert len(server.hellos) == 2
    assert len(recorder.problems) == 1, "a change of the channel is no problem"
    assert (await line.call(UpKind.MEASUREMENTS, measured(99))).succeeded


async def test_swallowed_frames_lead_to_a_long_poll(
    open_line: Callable[..., Line], server: StandIn, proxy: ObstacleProxy, recorder: Recorder
) -> None:
    proxy.swallows = True
    line = open_line(hello_s=0.5)
    call = asyncio.create_task(line.call(UpKind.MEASUREMENTS, measured(-1)))
    await until(lambda: line.is_connected)
    assert line.channel is Channel.POLL and proxy.upgrades == OBSTACLES
    assert "may hold messages back" in recorder.problems[0]
    assert (await call).succeeded and steps(server) == [-1]
    server.frames.clear()
    await exchange(line, server, recorder)


async def test_line_cut_three_times_goes_on_by_long_poll(
    open_line: Callable[..., Line], server: StandIn, proxy: ObstacleProxy
) -> None:
    proxy.cuts_after_s = 0.4
    line = open_line()
    numbers = iter(range(1000))
    while line.channel is not Channel.POLL:
        assert (await line.call(UpKind.MEASUREMENTS, measured(next(numbers)))).succeeded
        await asyncio.sleep(0.02)
    assert proxy.upgrades == OBSTACLES
    assert (await line.call(UpKind.MEASUREMENTS, measured(next(numbers)))).succeeded
    came = steps(server)
    # What was cut off before its acknowledgement came twice, and nothing was lost or moved.
    assert sorted(set(came)) == list(range(next(numbers))) and came == sorted(came)
    assert len(came) - len(set(came)) <= OBSTACLES


async def test_site_that_restarts_is_no_obstacle(
    open_line: Callable[..., Line], server: StandIn, proxy: ObstacleProxy
) -> None:
    """Its own proxy answers 502 meanwhile, also to polls."""
    server.upgrade_refusal = (502, {"Content-Type": "text/html"}, b"<html>Bad gateway</html>")
    line = open_line()
    await until(lambda: proxy.upgrades == OBSTACLES - 1)
    assert proxy.polls == 0
    server.upgrade_refusal = None
    await until(lambda: line.is_connected)
    assert line.channel is Channel.WEBSOCKET


async def test_poll_line_survives_a_cut_and_a_lost_line(
    open_line: Callable[..., Line], server: StandIn, proxy: ObstacleProxy
) -> None:
    proxy.refuses = True
    line = open_line()
    await until(lambda: line.is_connected)
    proxy.cut_all()
    assert (await line.call(UpKind.MEASUREMENTS, measured(1))).succeeded
    assert len(server.hellos) == 1, "a poll that was cut is repeated"
    server.line.cut()
    assert (await line.call(UpKind.MEASUREMENTS, measured(2))).succeeded
    assert len(server.hellos) == 2, "a lost line says hello again"
    assert steps(server) == [1, 2]


async def test_answer_of_a_stranger_to_a_poll_is_not_the_sites(
    open_line: Callable[..., Line],
    server: StandIn,
    proxy: ObstacleProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy.refuses = True
    server.poll = lambda _request: {"welcome": "to this hotel"}  # type: ignore[method-assign]
    line = open_line()
    await until(lambda: "answers 200 to polls; perhaps with a page to log in" in line.problem)
    monkeypatch.delattr(server, "poll")
    await until(lambda: line.is_connected)


async def test_waiting_poll_is_made_shorter(
    open_line: Callable[..., Line],
    server: StandIn,
    proxy: ObstacleProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Something on the way may allow no answer after such a time."""
    proxy.refuses = True
    monkeypatch.setattr(poll_channel, "SHORTEST_WAIT_S", 0.5)
    line = open_line()
    await until(lambda: line.is_connected)
    waits = []
    poll = server.poll

    def cut_long_ones(request: dict[str, Any]) -> dict[str, Any]:
        waits.append(request["wait_s"])
        if request["wait_s"] > 7:
            proxy.cut_all()
        return poll(request)

    server.poll = cut_long_ones  # type: ignore[method-assign]
    proxy.cut_all()
    await until(lambda: waits and waits[-1] < 7, 20)
    assert waits[-1] == 6.25 and len(server.hellos) == 1


def test_choice_of_the_channel() -> None:
    now = 0.0
    choice = ChannelChoice(clock=lambda: now)
    for _ in range(OBSTACLES - 1):
        choice.obstructed(certain=False)
        assert not choice.polls and choice.websocket_in_s == 0
    choice.healthy()
    choice.obstructed(certain=False)
    assert not choice.polls
    choice.obstructed(certain=True)
    assert choice.polls and choice.websocket_in_s == RETRY_S == 600
    now = 601.0
    assert choice.polls and choice.websocket_in_s == 0
    choice.postpone()
    assert choice.websocket_in_s == RETRY_S
    choice.poll_failed()
    assert choice.websocket_in_s == 0


def test_revocation_is_believed_at_the_second_time() -> None:
    now = 0.0
    revocation = Revocation(120.0, lambda: now)
    error = Revoked("gone", 401)
    assert revocation.hear(error) == 120
    now = 60.0
    assert revocation.hear(error) == 60
    revocation.disproved()
    assert revocation.hear(error) == 120
    now = 180.0
    with pytest.raises(Revoked):
        revocation.hear(error)


def test_agent_works_by_long_poll(
    agent: AgentProcess, server: StandIn, proxy: ObstacleProxy
) -> None:
    proxy.refuses = True
    credentials.change(agent.state_dir, server=proxy.url)
    agent.start()
    offered = server.offer("steps=40 pause=0.05 bytes=700000", weights=bytes(800_000))
    wait_for(lambda: offered.phase == "reported", 20)
    assert len(offered.update) == 700_000
    kinds = [kind for kind, body in server.frames if body.get("assignment") == offered.id]
    assert kinds.count("accept") == kinds.count("report") == 1
    assert len(server.hellos) == 1
    values = agent.status()
    assert values["online"] and values["channel"] == "poll"
    assert "connected by long poll" in as_text(values)
    assert "no WebSocket comes through; the line goes on by long poll" in agent.log
    cancelled = server.offer("steps=1000 pause=0.05")
    wait_for(lambda: cancelled.phase == "training")
    began = time.monotonic()
    server.cancel(cancelled, "the job was paused")
    wait_for(lambda: server.activities[-1]["assignment"] is None)
    assert time.monotonic() - began < 2 * slack()

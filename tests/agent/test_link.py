"""Emulated links: real transfers take the time of the link's figures, and arrive complete."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fedcore.errors import SpecError, Stopped
from fedcore.hardware.links import INSTANT, LINKS, Link
from tests.agent.conftest import AgentProcess, slack
from tests.agent.stand_in import StandIn
from tests.agent.transfers import CONTENT, SHA256, Site, fetch
from workers.agent.agent_errors import AgentError
from workers.agent.agent_settings import read_settings
from workers.agent.assignment.artefact_cache import ArtefactCache
from workers.agent.cli import main
from workers.agent.http import link_emulation
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.http.throttle import DOWN, UP, LinkThrottle

FAST = Link(up_bps=12e6, down_bps=24e6, delay_s=0.04, loss=0.25, name="fast")


def take_their_time(began: float, predicted_s: float) -> None:
    """Never less than the link allows; this machine's load decides how much more."""
    took_s = time.monotonic() - began
    assert predicted_s <= took_s < 1.3 * predicted_s + 1.0 * slack()


def test_transfers_take_the_predicted_time(site: Site, cache: ArtefactCache, update: Path) -> None:
    server = ServerApi(Address(site.url, "secret", throttle=LinkThrottle(FAST)))
    began = time.monotonic()
    server.assignment("a")
    take_their_time(began, 2 * FAST.delay_s)  # to connect, and to ask
    assert server.traffic.rtt_s is not None and server.traffic.rtt_s >= FAST.delay_s
    began = time.monotonic()
    assert fetch(server, cache).read_bytes() == CONTENT
    take_their_time(began, FAST.down_s(len(CONTENT)))
    began = time.monotonic()
    server.upload("a", update, SHA256)
    take_their_time(began, FAST.up_s(len(CONTENT)))
    assert site.part == CONTENT
    server.close()


class Clock:
    """A clock that only sleeping advances."""

    def __init__(self) -> None:
        self.now = 50.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def throttled(link: Link) -> tuple[LinkThrottle, Clock]:
    clock = Clock()
    return LinkThrottle(link, lambda: clock.now, clock.sleep), clock


def never_stop() -> None:
    """A check that never cancels."""


@pytest.mark.parametrize("link", [link for link in LINKS.values() if link != INSTANT])
def test_undisturbed_links_are_exact(link: Link) -> None:
    throttle, clock = throttled(link)
    for way, seconds in ((UP, link.up_s), (DOWN, link.down_s)):
        began, left, turned = clock.now, 400_000, True
        while left:
            count = throttle.chunk_size(way, left)
            throttle.carry(way, count, turned, never_stop)
            left, turned = left - count, False
        # The other half of the delay passes on the answer's way.
        assert clock.now - began + link.delay_s / 2 == pytest.approx(seconds(400_000))


def test_short_delay_is_caught_up_but_no_burst_follows() -> None:
    throttle, clock = throttled(Link(1e6, 1e6, 0.0))
    throttle.carry(UP, 20_000, True, never_stop)
    clock.now += 0.01
    throttle.carry(UP, 20_000, False, never_stop)
    assert clock.now == pytest.approx(50.04)
    clock.now += 10
    throttle.carry(UP, 20_000, False, never_stop)
    assert clock.now == pytest.approx(60.06)


def test_a_slow_link_can_be_left() -> None:
    throttle, _ = throttled(LINKS["nb-iot"])

    def stop() -> None:
        raise Stopped("cancelled")

    with pytest.raises(Stopped):
        throttle.carry(UP, 10_000, True, stop)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_both_processes_share_one_link() -> None:
    throttle, clock = throttled(Link(1e6, 1e6, 0.0))
    child = os.fork()
    if child == 0:
        throttle.carry(UP, 500_000, True, never_stop)
        os._exit(0)
    os.waitpid(child, 0)
    throttle.carry(UP, 500_000, True, never_stop)
    assert clock.now == pytest.approx(51.0)


def test_names_and_figures_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="nb-iot, lte-m, lte, 5g"):
        link_emulation.parse_link("carrier-pigeon")
    with pytest.raises(SpecError, match="above 0"):
        Link(0.0, 1.0, 0.0)
    for wrong in (0.0, -1.0, float("nan")):
        dead = replace(FAST)
        object.__setattr__(dead, "down_bps", wrong)
        with pytest.raises(AgentError, match="carries nothing down"):
            link_emulation.check(dead)


def test_unknown_link_stops_the_start_and_known_is_shown(
    agent: AgentProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--state-dir", str(agent.state_dir)]
    assert main(["run", "--link", "carrier-pigeon", *folder]) == 2
    assert "unknown link 'carrier-pigeon'; give one of instant, nb-iot" in capsys.readouterr().err
    assert not (agent.state_dir / link_emulation.FILE).exists()
    link_emulation.choose_link(read_settings(str(agent.state_dir), environ={}), "dsl")
    assert main(["status", *folder]) == 0
    assert "emulating dsl" in capsys.readouterr().out


def test_chosen_link_is_remembered(tmp_path: Path) -> None:
    plain = read_settings(str(tmp_path), environ={})
    assert (
        link_emulation.choose_link(plain) == INSTANT
        and link_emulation.throttle_for(INSTANT) is None
    )
    assert link_emulation.choose_link(plain, "LTE").name == "lte"
    assert link_emulation.choose_link(plain).name == "lte"
    by_environment = read_settings(str(tmp_path), environ={"EDGEWISE_LINK": "dsl"})
    assert link_emulation.choose_link(by_environment).name == "dsl"
    assert link_emulation.choose_link(by_environment, "instant") == INSTANT
    assert link_emulation.choose_link(plain) == INSTANT
    (tmp_path / link_emulation.FILE).write_text("[]")
    assert link_emulation.choose_link(plain) == INSTANT


def test_agent_reports_its_emulated_link(agent: AgentProcess, server: StandIn) -> None:
    agent.start("--link", "ethernet-1g")
    assert server.hellos[-1]["profile"]["link"] == "ethernet-1g"
    agent.send(signal.SIGTERM)
    agent.wait(3.2)
    agent.start()
    assert server.hellos[-1]["profile"]["link"] == "ethernet-1g"
    offered = server.offer("steps=2")
    while not offered.report:
        time.sleep(0.05)
    metrics = offered.report["metrics"]
    assert metrics["rtt_s"] >= LINKS["ethernet-1g"].delay_s
    assert metrics["net_up_bytes"] == offered.report["bytes_up"] > 0
    assert metrics["retransfer_bytes"] == 0

"""The agent's own line against a real site: long poll, restores, clones, revocation, keys."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from fedcore.errors import ServerUnavailable
from fedcore.formats.line_bodies import UpKind
from fedcore.formats.line_messages import POLL_S
from tests.agent.obstacles import ObstacleProxy
from tests.conftest import Enrolled
from tests.device import SCORES
from tests.federation import Federation, phase_of
from tests.line.agents import RealAgent
from tests.line.clients import wait_until
from tests.line.site import WEB, Site
from webapp.devices import device_messages
from webapp.devices.models import Device
from webapp.devices.signing import public_key
from webapp.jobs.lifecycle import enrolment
from webapp.jobs.models import Event
from webapp.telemetry.models import Sample
from workers.agent.agent_errors import Revoked
from workers.agent.line.channel_choice import Channel
from workers.agent.state import credentials

pytestmark = pytest.mark.slow

OTHER = "other"
LONG_AGO = {"line_epoch": 0, "boot_id": "", "previous_boot_id": "", "last_sample_seq": 0}


@pytest.fixture
def proxy(site: Site) -> Iterator[ObstacleProxy]:
    between = ObstacleProxy(site.ports[WEB])
    yield between
    between.close()


@pytest.fixture
def pi(enrolled_device: Callable[..., Enrolled]) -> Enrolled:
    return enrolled_device()


Start = Callable[..., RealAgent]


@pytest.fixture
def start(proxy: ObstacleProxy, pi: Enrolled, tmp_path: Path) -> Iterator[Start]:
    """Starts an agent of the device behind the proxy."""
    agents: list[RealAgent] = []

    def begin(boot_id: str = "boot-1", enrolled: Enrolled = pi, **options: Any) -> RealAgent:
        folder = tmp_path / f"agent-{len(agents)}"
        agent = RealAgent(proxy.url, enrolled, folder, boot_id, **options)
        agents.append(agent)
        agent.__enter__()
        return agent

    yield begin
    for agent in agents:
        agent.__exit__()


def sample(seq: int) -> dict[str, Any]:
    return {"seq": seq, "at": "2026-03-01T12:00:00Z", "values": {"loss": 1.5}}


def measure(agent: RealAgent, seq: int) -> None:
    agent.call(UpKind.MEASUREMENTS, samples=[sample(seq)])


def persistently(call: Callable[[], Any]) -> Any:
    """As an agent's processes do: a call that finds no line is repeated."""
    until = time.monotonic() + 30
    while True:
        try:
            return call()
        except ServerUnavailable:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_evaluation_by_long_poll(
    proxy: ObstacleProxy, federation: Federation, start: Start
) -> None:
    kitchen = federation.device("pi-kitchen-2")
    proxy.refuses = True
    agent = start(kitchen.boot_id, kitchen.enrolled)
    wait_until(lambda: agent.line.channel is Channel.POLL)
    device = Device.objects.get(pk=kitchen.device.pk)
    assert (device.line_channel, device.presence) == ("poll", "online")
    federation.launch()
    wait_until(lambda: agent.offered)
    assignment = json.loads(agent.offered[0].offer.body)["assignment"]
    work = agent.call(UpKind.ACCEPT, assignment=assignment)
    assert work["assignment"] == assignment
    agent.call(UpKind.PROGRESS, assignment=assignment, phase="training")
    assert phase_of(assignment) == "training"
    began = time.monotonic()
    assert device_messages.cancel(device.pk, "an-assignment", "the job was paused")
    wait_until(lambda: agent.state.cancelled("an-assignment"))
    assert time.monotonic() - began < 5
    agent.call(UpKind.REPORT, assignment=assignment, update=None, examples=6, metrics=SCORES)
    assert phase_of(assignment) == "reported"
    time.sleep(1.5)
    assert len(agent.offered) == 1, "no offer comes twice on one line"
    assert Device.objects.get(pk=device.pk).line_epoch == device.line_epoch
    texts = Event.objects.filter(device=device, text__contains="evaluated")
    assert texts.count() == 1


def test_presence_by_long_poll_is_two_poll_lengths(
    proxy: ObstacleProxy, start: Start, pi: Enrolled
) -> None:
    proxy.refuses = True
    agent = start()
    wait_until(lambda: agent.line.is_connected)
    agent.__exit__()
    rows = Device.objects.filter(pk=pi.device.pk)
    for age_s, is_online in ((2 * POLL_S - 5, True), (2 * POLL_S + 1, False)):
        rows.update(last_seen_at=timezone.now() - timedelta(seconds=age_s))
        assert rows.get().is_online is is_online
        assert Device.online().filter(pk=pi.device.pk).exists() is is_online
    rows.update(line_channel="websocket", last_seen_at=timezone.now() - timedelta(seconds=55))
    assert rows.get().is_online, "the site's pings are rarer than polls"


def test_offer_reaches_a_poll_of_another_web_process(
    site: Site, proxy: ObstacleProxy, federation: Federation, start: Start
) -> None:
    """Whichever process takes the next poll, the line goes on."""
    if OTHER not in site.processes.running:
        site.start_web(OTHER)
    kitchen = federation.device("pi-kitchen-2")
    proxy.refuses = True
    agent = start(kitchen.boot_id, kitchen.enrolled)
    wait_until(lambda: agent.line.is_connected)
    epoch = Device.objects.get(pk=kitchen.device.pk).line_epoch
    proxy.target_port = site.ports[OTHER]
    proxy.cut_all()
    persistently(lambda: measure(agent, 1))
    federation.launch()
    wait_until(lambda: agent.offered)
    assert Device.objects.get(pk=kitchen.device.pk).line_epoch == epoch
    site.stop(OTHER)


@pytest.mark.parametrize("polls", [False, True], ids=["websocket", "poll"])
def test_agent_lives_on_through_a_restore(
    proxy: ObstacleProxy, start: Start, pi: Enrolled, polls: bool
) -> None:
    """The database is that of before the device's first hello."""
    proxy.refuses = polls
    agent = start()
    wait_until(lambda: agent.line.is_connected)
    measure(agent, 7)
    Device.objects.filter(pk=pi.device.pk).update(**LONG_AGO)
    Sample.objects.all().delete()
    persistently(lambda: measure(agent, 8))
    device = Device.objects.get(pk=pi.device.pk)
    assert (device.boot_id, device.line_epoch, device.last_sample_seq) == ("boot-1", 1, 8)
    assert device.is_online and agent.line.is_connected
    assert agent.outbox.add("t", None, {}) == 1, "its own numbers go on"


@pytest.mark.parametrize("polls", [False, True], ids=["websocket", "poll"])
def test_replaced_boot_id_leads_to_a_hello(
    proxy: ObstacleProxy, start: Start, pi: Enrolled, polls: bool
) -> None:
    proxy.refuses = polls
    agent = start()
    wait_until(lambda: agent.line.is_connected)
    Device.objects.filter(pk=pi.device.pk).update(boot_id="of another start")
    persistently(lambda: measure(agent, 1))
    assert Device.objects.get(pk=pi.device.pk).boot_id == "boot-1"


@pytest.mark.parametrize("polls", [False, True], ids=["websocket", "poll"])
def test_cloned_card_is_named_and_floods_nobody(
    proxy: ObstacleProxy, start: Start, pi: Enrolled, polls: bool
) -> None:
    proxy.refuses = polls
    first, second = start("first-boot"), start("second-boot")
    clones = Event.objects.filter(text__contains="two agents use this credential")
    wait_until(lambda: clones.exists())
    text = clones.get().text
    assert "first-bo" in text and "second-b" in text
    epoch = Device.objects.get(pk=pi.device.pk).line_epoch
    time.sleep(4)
    assert Device.objects.get(pk=pi.device.pk).line_epoch - epoch < 10
    second.__exit__()
    persistently(lambda: measure(first, 1))
    assert Device.objects.get(pk=pi.device.pk).boot_id == "first-boot"


@pytest.mark.parametrize("polls", [False, True], ids=["websocket", "poll"])
def test_revocation_is_asked_for_twice(
    proxy: ObstacleProxy, start: Start, pi: Enrolled, polls: bool
) -> None:
    proxy.refuses = polls
    agent = start(confirm_s=1.5)
    wait_until(lambda: agent.line.is_connected)
    enrolment.revoke(pi.device, None)
    wait_until(lambda: "asked again in" in agent.line.problem)
    began = time.monotonic()
    assert agent.error is None
    wait_until(lambda: agent.error is not None)
    assert isinstance(agent.error, Revoked)
    assert time.monotonic() - began > 1


def test_revocation_by_mistake_is_survived(start: Start, pi: Enrolled) -> None:
    """The site was restored from a backup of before the enrolment, and then from a later one."""
    agent = start(confirm_s=5.0)
    wait_until(lambda: agent.line.is_connected)
    credential = pi.device.credential
    Device.objects.filter(pk=pi.device.pk).update(line_epoch=99)
    credential.delete()
    with pytest.raises(ServerUnavailable):
        measure(agent, 1)
    wait_until(lambda: "asked again in" in agent.line.problem)
    credential.save(force_insert=True)
    wait_until(lambda: agent.line.is_connected)
    persistently(lambda: measure(agent, 1))
    assert agent.error is None


def test_new_signing_key_is_believed(
    site: Site, proxy: ObstacleProxy, federation: Federation, start: Start
) -> None:
    kitchen = federation.device("pi-kitchen-2")
    agent = start(kitchen.boot_id, kitchen.enrolled)
    wait_until(lambda: agent.line.is_connected)
    old = agent.key.public_key
    for _ in range(2):  # the device follows both
        call_command("replace_signing_key", verbosity=0)
    federation.launch()
    wait_until(lambda: agent.offered)
    assert agent.key.public_key != old
    assert credentials.require(agent.folder).signing_public_key == public_key()
    assignment = json.loads(agent.offered[0].offer.body)["assignment"]
    persistently(lambda: agent.call(UpKind.ACCEPT, assignment=assignment))
    assert phase_of(assignment) == "accepted"

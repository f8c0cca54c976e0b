"""Only the site's signed refusals count; what something on the way answers costs time alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.errors import ServerRefused
from fedcore.formats.key_succession import Succession, body_of, key_name
from fedcore.formats.line_bodies import Envelope
from fedcore.formats.verdicts import SiteVerdict, digest, to_header
from fedcore.formats.verdicts import body_of as verdict_body
from tests.agent.conftest import AgentProcess, wait_for
from tests.agent.stand_in import StandIn
from tests.agent.stand_in_http import API_TOKEN
from tests.agent.transfers import CONTENT, SHA256, Site, fetch
from workers.agent.agent_errors import Intercepted, Revoked
from workers.agent.assignment.artefact_cache import ArtefactCache
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.http.verdicts import VerdictReader, ask
from workers.agent.state import credentials
from workers.agent.state.site_key import SiteKey

KEY = Ed25519PrivateKey.generate()
PAGE = (200, {"Content-Type": "text/html"}, b"<html>Welcome to this hotel</html>")
PORTAL = (302, {"Location": "https://portal.example/"}, b"")
PROBLEM = {"Content-Type": "application/problem+json"}


def public(key: Ed25519PrivateKey = KEY) -> bytes:
    return key.public_key().public_bytes_raw()


@pytest.fixture
def client(site: Site) -> Iterator[ServerApi]:
    api = ServerApi(Address(site.url, API_TOKEN, key=SiteKey(public())))
    yield api
    api.close()


def foreign(status: int) -> tuple[int, dict[str, str], bytes]:
    """A stranger may even speak the site's format."""
    body = json.dumps({"status": status, "detail": "no"}).encode()
    return status, {**PROBLEM, "Connection": "close"}, body


@pytest.mark.parametrize("status", [401, 403, 404, 405, 409, 413, 422, 426, 451])
def test_strangers_refusal_of_an_upload_is_worth_another_try(
    site: Site, client: ServerApi, update: Path, status: int
) -> None:
    site.answers = [foreign(status)]
    with pytest.raises(Intercepted, match=f"answers {status} to uploads") as caught:
        client.upload("a", update, SHA256)
    assert caught.value.retryable and "something between this device" in str(caught.value)
    site.answers = [foreign(status)]
    with pytest.raises(Intercepted):  # to the question how much has arrived
        client.upload("a", update, SHA256, resume=True)
    client.upload("a", update, SHA256, resume=True)
    assert site.part == CONTENT


def test_body_limit_of_a_proxy_is_named(site: Site, client: ServerApi, update: Path) -> None:
    site.answers = [(413, {"Content-Type": "text/html"}, b"<html>too large</html>")]
    with pytest.raises(Intercepted) as caught:
        client.upload("a", update, SHA256)
    assert str(caught.value) == (
        "something between this device and the site answers 413 to uploads; its body limit is "
        "too small"
    )


@pytest.mark.parametrize(
    "answer",
    [
        PAGE,
        PORTAL,
        (200, {}, b"<html>"),
        (200, {"Content-Type": "application/octet-stream"}, b"shorter"),
        (206, {}, b"shorter"),
        *(foreign(status) for status in (401, 403, 404, 409, 416)),
    ],
    ids=lambda answer: str(answer[0]),
)
def test_download_goes_on_after_a_strangers_answer(
    site: Site, client: ServerApi, cache: ArtefactCache, answer: tuple[int, dict[str, str], bytes]
) -> None:
    """What has arrived is kept."""
    site.cut_at = 1_000_000
    with pytest.raises(Exception, match="cut"):
        fetch(client, cache)
    site.answers = [answer]
    with pytest.raises(Intercepted, match="to downloads"):
        fetch(client, cache)
    before = client.traffic.down
    assert fetch(client, cache).read_bytes() == CONTENT
    assert client.traffic.down - before < len(CONTENT) - 900_000


def test_success_of_a_stranger_is_no_upload(site: Site, client: ServerApi, update: Path) -> None:
    for answer in (PAGE, (204, {}, b""), PORTAL):
        site.answers = [answer]
        client.close()  # the stranger may have closed the connection, at any moment
        with pytest.raises(Intercepted):
            client.upload("a", update, SHA256)
    assert not site.part


def test_strangers_answer_does_not_set_the_clock(site: Site, client: ServerApi) -> None:
    site.answers = [(401, {"Date": "Wed, 01 Jan 2200 00:00:00 GMT"}, b"{}")]
    with pytest.raises(Intercepted):
        client.assignment("a")
    assert client.clock.offset_s == 0


def test_strangers_401_does_not_look_like_a_revocation(site: Site, client: ServerApi) -> None:
    site.answers = [foreign(401)]
    with pytest.raises(Intercepted, match="it asks for a log-in"):
        client.unenrol()


class Signed:
    """A verdict that fits, and what else it may say."""

    def __init__(self) -> None:
        self.question = ask("PATCH", "/prefix/api/v1/device/assignments/a/update/b/")
        self.values = {
            "credential": digest(API_TOKEN),
            "request": "PATCH /api/v1/device/assignments/a/update/b/",
            "nonce": self.question.nonce,
            "status": 409,
        }

    def header(self, key: Ed25519PrivateKey = KEY, **changes: object) -> str:
        body = verdict_body(SiteVerdict(**{**self.values, **changes}))  # type: ignore[arg-type]
        return to_header(body, key.sign(body))


def test_verdict_fits_one_question() -> None:
    signed, reader = Signed(), VerdictReader(API_TOKEN, SiteKey(public()))
    assert reader.is_from_site(signed.question, 409, signed.header())
    moved = signed.header(status=307, target=digest("https://a.example/"))
    assert reader.is_from_site(signed.question, 307, moved, "https://a.example/")
    assert not reader.is_from_site(signed.question, 307, moved, "https://b.example/")
    assert not reader.is_from_site(signed.question, 401, signed.header())
    assert not reader.is_from_site(ask("PATCH", "/api/"), 409, signed.header())
    for changes in (
        {"credential": digest("of another device")},
        {"request": "PATCH /api/v1/device/assignments/c/update/d/"},
        {"nonce": "x" * 24},
        {"target": digest("https://a.example/")},
        {"key": Ed25519PrivateKey.generate()},
    ):
        assert not reader.is_from_site(signed.question, 409, signed.header(**changes))


@pytest.mark.parametrize("text", ["", ".", "a.b", "é.é", "e30=.AAAA", "x" * 5000 + ".y", "=.="])
def test_nonsense_is_no_verdict(text: str) -> None:
    signed, reader = Signed(), VerdictReader(API_TOKEN, SiteKey(public()))
    assert not reader.is_from_site(signed.question, 409, text)


def test_envelope_is_no_verdict() -> None:
    """The same key signs offers: their body must not pass for a verdict."""
    signed, reader = Signed(), VerdictReader(API_TOKEN, SiteKey(public()))
    body = json.dumps({"kind": "work", **signed.values}).encode()
    assert not reader.is_from_site(signed.question, 409, to_header(body, KEY.sign(body)))


def succession(old: Ed25519PrivateKey, new: Ed25519PrivateKey) -> Envelope:
    old_text, new_text = (base64.b64encode(public(key)).decode() for key in (old, new))
    body = body_of(Succession(replaces=old_text, public_key=new_text, at=1))
    return Envelope(body.decode(), base64.b64encode(old.sign(body)).decode())


def test_device_follows_all_successions(tmp_path: Path, agent: AgentProcess) -> None:
    first, second, third, stranger = (Ed25519PrivateKey.generate() for _ in range(4))
    credentials.change(agent.state_dir, signing_public_key=base64.b64encode(public(first)).decode())
    key = SiteKey(public(first), agent.state_dir)
    elsewhere = SiteKey(public(first), agent.state_dir)  # in another process
    chain = [succession(first, second), succession(second, third)]
    forged = Envelope(chain[0].body, succession(stranger, first).signature)
    assert not key.follow([forged, succession(stranger, second), Envelope("{}", "bm8=")])
    assert key.follow(chain) and key.public_key == public(third)
    assert not key.follow(chain), "it is known by now"
    assert key.name == key_name(public(third))
    assert credentials.require(agent.state_dir).public_key == public(third)
    assert elsewhere.has_signed(b"x", third.sign(b"x"))
    assert not elsewhere.has_signed(b"x", first.sign(b"x"))


def test_work_outlives_strangers_answers(agent: AgentProcess, server: StandIn) -> None:
    """A proxy answers in the site's place for a while: the update arrives in the end."""
    agent.start()
    page = PAGE[1], b"<html>"
    server.foreign = {
        "GET": [PORTAL, (404, *page)],
        "PATCH": [(413, *page), (401, *page)],
        "HEAD": [(403, *page)],
    }
    offered = server.offer("steps=2 bytes=700000", weights=bytes(range(256)) * 4000)
    wait_for(lambda: offered.phase == "reported", 30)
    assert len(offered.update) == 700_000 and not offered.failure
    assert offered.report["metrics"]["wait_s"] > 3
    for text in ("302 to downloads", "413 to uploads; its body limit is too small"):
        assert f"something between this device and the site answers {text}" in agent.log
    assert "portal.example" in agent.log, "for whoever looks for the cause on this device"
    assert "portal.example" not in json.dumps(server.frames, default=str)


def test_site_learns_of_the_intermediary_at_the_deadline(
    agent: AgentProcess, server: StandIn
) -> None:
    agent.start()
    server.foreign = {"PATCH": [(413, {}, b"")] * 50, "HEAD": []}
    deadline = datetime.now(timezone.utc) + timedelta(seconds=6)
    offered = server.offer(
        "steps=2 bytes=700000", weights=bytes(800_000), deadline_at=deadline.isoformat()
    )
    wait_for(lambda: offered.failure, 30)
    assert "answers 413 to uploads; its body limit is too small" in offered.failure["reason"]
    assert offered.failure["retryable"] is True


def test_revocation_by_a_stranger_does_not_end_the_agent(
    agent: AgentProcess, server: StandIn
) -> None:
    agent.start()
    server.upgrade_refusal = foreign(401)
    server.poll = lambda _request: {}  # type: ignore[method-assign]
    server.lines.pop().close(4003, "this device's credential was revoked")
    wait_for(lambda: len(server.upgrades) >= 3, 20)
    assert agent.process is not None and agent.process.poll() is None
    server.upgrade_refusal = None
    wait_for(lambda: server.lines, 60)
    offered = server.offer("steps=2")
    wait_for(lambda: offered.phase == "reported")
    server.revoked = True
    assert agent.wait(20) == 3
    assert agent.log.count("the site is asked again") == 1


def test_refusals_of_the_site_still_count(site: Site, client: ServerApi, update: Path) -> None:
    for status, error in ((401, Revoked), (409, ServerRefused), (422, ServerRefused)):
        site.signed = [(status, KEY)]
        with pytest.raises(error):
            client.upload("a", update, SHA256)

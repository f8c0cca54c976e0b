"""``/healthz`` and ``/readyz``, and what they say about parts that are away."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import InMemoryStorage

from tests import asgi
from tests.conftest import free_port
from tests.disk import SmallDisk, small_disk
from webapp.api import health, readiness
from webapp.api.health import Health, Readiness, ReadinessProbe
from webapp.jobs.artefacts.store import FULL_TEXT
from workers.stack.embedded import start_broker
from workers.stack.processes import Processes

__all__ = ["small_disk"]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def broker(tmp_path: Path, settings: Any) -> Iterator[Processes]:
    processes = Processes(tmp_path / "log")
    settings.REDIS_URL = start_broker(
        processes, "broker", free_port(), "password", tmp_path / "broker"
    )
    yield processes
    processes.stop_all()


def reasons() -> dict[str, str]:
    """What each check says now, without the cache."""

    async def run() -> Readiness:
        return await ReadinessProbe(readiness.CHECKS).readiness()

    return dict(asyncio.run(run()).reasons)


def ask(path: str, method: str = "GET", **changes: Any) -> asgi.Answer:
    async def other(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})

    exchange = asgi.Exchange([b""])
    scope = asgi.scope(method, path, {}, **changes)
    asyncio.run(Health(other)(scope, exchange.receive, exchange.send))
    return exchange.answer


def test_healthz_needs_no_other_part() -> None:
    """Nor a known host."""
    headers = {"Host": "elsewhere.test"}
    answer = asgi.call("GET", "/healthz", headers).answer
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    assert answer["Cache-Control"] == "no-store"
    assert asgi.call("GET", "/login/", headers).answer.status_code == 400


def test_other_requests_pass() -> None:
    assert ask("/healthz", "POST").status_code == 404
    assert ask("/healthz/").status_code == 404
    assert ask("/site/healthz", root_path="/site").status_code == 200
    assert ask("/healthz", "HEAD").content == b""


def test_readyz_is_ready(broker: Processes) -> None:
    answer = ask("/readyz")
    ok = {"ok": True, "reason": ""}
    checks = {"database": ok, "broker": ok, "artefacts": ok}
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "checks": checks})
    assert [path for path in Path(_artefacts()).rglob("*") if path.is_file()] == []


def _artefacts() -> str:
    return str(readiness.storage().location)  # type: ignore[attr-defined]


def test_absent_broker_is_named_without_its_address() -> None:
    answer = ask("/readyz")
    assert answer.status_code == 503
    values = answer.json()
    assert not values["ready"]
    assert values["checks"]["broker"] == {"ok": False, "reason": readiness.BROKER_DOWN}
    assert b"127.0.0.1" not in answer.content


def test_full_broker_is_not_ready(broker: Processes, settings: Any) -> None:
    import redis

    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.config_set("maxmemory", "1")
    assert reasons()["broker"] == readiness.BROKER_REFUSES


def test_silent_broker_is_not_waited_for(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "BROKER_LIMIT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.REDIS_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        assert reasons()["broker"] == readiness.BROKER_DOWN


def test_absent_database_is_named(broker: Processes, tmp_path: Path, settings: Any) -> None:
    from django.db import connections

    name = connections.databases["default"]["NAME"]
    wrong = {"NAME": str(tmp_path / "absent" / "x"), "HOST": "127.0.0.1", "PORT": "1"}
    before = {key: connections.databases["default"].get(key) for key in wrong}
    connections.databases["default"].update(wrong)
    try:
        assert reasons() == {"database": readiness.DATABASE_DOWN, "broker": "", "artefacts": ""}
    finally:
        connections.databases["default"].update(before)
    assert connections.databases["default"]["NAME"] == name


def test_read_only_storage_is_not_ready(broker: Processes, tmp_path: Path) -> None:
    (tmp_path / "artefacts").write_text("a file where the folder should be")
    assert reasons()["artefacts"] == readiness.STORAGE_READ_ONLY


def test_full_disk_is_named(broker: Processes, small_disk: SmallDisk) -> None:
    assert reasons()["artefacts"] == ""
    small_disk.fill()
    assert reasons()["artefacts"] == FULL_TEXT


def test_bucket_is_written_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    place = InMemoryStorage()
    monkeypatch.setattr(readiness, "storage", lambda: place)
    bucket = readiness.BucketWrites()
    bucket.write()
    place.delete(readiness.BUCKET_OBJECT)
    bucket.write()
    assert not place.exists(readiness.BUCKET_OBJECT)


async def test_many_askers_share_one_check() -> None:
    count = 0

    async def check() -> str:
        nonlocal count
        count += 1
        await asyncio.sleep(0.05)
        return ""

    probe = ReadinessProbe({"part": check})
    results = await asyncio.gather(*(probe.readiness() for _ in range(50)))
    await probe.readiness()
    assert count == 1
    assert all(result.ready for result in results)


async def test_hanging_check_is_started_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LIMIT_S", 0.02)
    monkeypatch.setattr(health, "CACHE_S", 0.0)
    release, count = asyncio.Event(), 0

    async def check() -> str:
        nonlocal count
        count += 1
        await release.wait()
        return ""

    probe = ReadinessProbe({"part": check})
    for _ in range(3):
        assert (await probe.readiness()).reasons == {"part": health.TOO_LATE}
    release.set()
    assert (await probe.readiness()).ready
    assert count == 1


async def test_failing_check_tells_no_secret() -> None:
    async def check() -> str:
        raise RuntimeError("postgres://edgewise:secret@postgres")

    body = (await ReadinessProbe({"part": check}).readiness()).body()
    assert json.loads(body)["checks"]["part"]["reason"] == health.CHECK_FAILED

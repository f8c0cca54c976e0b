"""What every test gets: a site for this process alone, and no way to reach another.

The database is SQLite unless ``DATABASE_URL`` names another; nobody listens where the site's broker
should be.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

if TYPE_CHECKING:
    from rest_framework.test import APIClient

    from webapp.accounts.models import User
    from webapp.devices.models import Device

VAR_DIR = Path(tempfile.mkdtemp(prefix="edgewise-tests-"))
STATIC_ROOT = VAR_DIR / "static"
STATIC_ROOT.mkdir()

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(VAR_DIR, ignore_errors=True)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None) -> None:
    """A file, since threads that share SQLite's in-memory database lock each other's tables."""
    from django.conf import settings

    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        database.setdefault("TEST", {})["NAME"] = str(VAR_DIR / "test.sqlite3")


@pytest.fixture(scope="session", autouse=True)
def quick_teardown() -> Iterator[None]:
    """Tables are emptied by ``empty_tables`` instead of Django's flush."""
    from django.test import TransactionTestCase

    from tests.empty_tables import empty_tables

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda _case: empty_tables())
        yield


@pytest.fixture(autouse=True)
def isolated_site(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Broker, cache, channel layer, files and password hashes that are fast and nobody else's.

    Not by the environment: pytest-django has read the settings before this file.
    """
    artefacts = {
        **settings.STORAGES["artefacts"],
        "OPTIONS": {"location": str(tmp_path / "artefacts"), "base_url": None},
    }
    static = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.VAR_DIR = tmp_path
    settings.STATIC_ROOT = STATIC_ROOT
    settings.SIGNING_KEY_FILE = VAR_DIR / "signing-key.pem"
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    settings.STORAGES = {"default": artefacts, "artefacts": artefacts, "staticfiles": static}
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    from django.core.cache import cache

    from webapp.common import background, wake
    from webapp.common.address_limits import ENROL_LIMIT, PASSWORD_LIMIT

    # The layer above lives in one event loop's memory: no other thread may use it.
    monkeypatch.setattr(wake, "sender", wake.at_once)
    monkeypatch.setattr(background, "runner", background.at_once)
    monkeypatch.setattr(os, "fsync", lambda _handle: None)  # no test survives a power cut
    cache.clear()
    ENROL_LIMIT.clear()
    PASSWORD_LIMIT.clear()
    yield
    cache.clear()


@dataclass
class Outbox:
    """What would have gone to the brokers: (task, arguments), and (kind, device, envelope)."""

    site: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    devices: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)

    def clear(self) -> None:
        self.site.clear()
        self.devices.clear()


@pytest.fixture(autouse=True)
def outbox(monkeypatch: pytest.MonkeyPatch) -> Outbox:
    """Messages are kept here instead of sent; no test talks to a broker by accident."""
    from webapp.common import task_queue as site_broker

    box = Outbox()
    monkeypatch.setattr(site_broker, "publisher", lambda name, args: box.site.append((name, args)))

    def keep(messages: Sequence[Any]) -> None:
        signed = [item for item in messages if item.envelope is not None]
        box.devices += [(i.kind, i.device_id, msgspec.to_builtins(i.envelope)) for i in signed]

    # By its path, since importing it needs Django's apps and not every run has them.
    monkeypatch.setattr("webapp.devices.device_messages.publisher", keep)
    return box


def _user(role: str) -> User:
    from webapp.accounts.models import User

    return User.objects.create_user(role, password="pass-word-1", role=role)


@pytest.fixture
def admin(db: None) -> User:
    return _user("admin")


@pytest.fixture
def operator(db: None) -> User:
    return _user("operator")


@pytest.fixture
def viewer(db: None) -> User:
    return _user("viewer")


@dataclass(frozen=True)
class Enrolled:
    """A device as it is right after its enrolment; ``client`` carries its token."""

    device: Device
    api_token: str
    client: APIClient


@pytest.fixture
def enrolled_device(db: None) -> Callable[..., Enrolled]:
    """``enrolled_device("pi-kitchen", examples=40)`` lets a device in as the enrolment call does.

    It has been seen just now and holds one dataset named ``law``.
    """
    from django.utils import timezone
    from rest_framework.test import APIClient

    from webapp.devices.models import Device
    from webapp.jobs.lifecycle import enrolment

    def enrol(name: str = "pi-kitchen", examples: int = 40, role: str = "trainer") -> Enrolled:
        _, token = enrolment.create_enrolment(None, name, role, timedelta(hours=1))
        data = [{"name": "law", "domain": "law", "examples": examples, "columns": ["text"]}]
        admission = enrolment.enrol(token, name, "0.1.0", {"cores": 4}, data)
        Device.objects.filter(pk=admission.device.pk).update(last_seen_at=timezone.now())
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Device {admission.api_token}")
        return Enrolled(
            Device.objects.get(pk=admission.device.pk),
            admission.api_token,
            client,
        )

    return enrol

"""What a web process needs before it can serve: database, broker, artefact storage."""

from __future__ import annotations

import logging
import time
import uuid
from pathlib import Path

import redis.asyncio as redis
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import DatabaseError, connection
from redis.exceptions import RedisError, ResponseError

from webapp.jobs.artefacts.store import DISK_FULL, FULL_TEXT, incoming_dir, storage
from webapp.transfer.asgi_tools import run_database_call, run_in_thread

log = logging.getLogger(__name__)

BROKER_KEY = "edgewise.ready"
BROKER_LIMIT_S = 3.0
BUCKET_OBJECT = "ready"
BUCKET_CACHE_S = 60.0  # each write to a bucket costs money

DATABASE_DOWN = "the database does not answer"
BROKER_DOWN = "the broker does not answer"
BROKER_REFUSES = "the broker refuses writes; it is probably full"
STORAGE_READ_ONLY = "artefacts cannot be written; check the storage and its permissions"


async def database_reason() -> str:
    try:
        await run_database_call(_query)
    except DatabaseError as error:
        log.warning("the database is not ready: %s", error)
        return DATABASE_DOWN
    return ""


def _query() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


async def broker_reason() -> str:
    """A write, since a full broker still answers a ping."""
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=BROKER_LIMIT_S, socket_connect_timeout=BROKER_LIMIT_S
    )
    try:
        await client.set(BROKER_KEY, "1", ex=60)
    except (RedisError, OSError) as error:
        log.warning("the broker is not ready: %s", error)
        return BROKER_REFUSES if isinstance(error, ResponseError) else BROKER_DOWN
    finally:
        await client.aclose()
    return ""


async def storage_reason() -> str:
    return await run_in_thread(_storage_reason)


def _storage_reason() -> str:
    place = storage()
    try:
        if isinstance(place, FileSystemStorage):
            _write_files(Path(place.location))
        else:
            bucket.write()
    except OSError as error:
        log.warning("the artefact storage is not ready: %s", error)
        return FULL_TEXT if error.errno in DISK_FULL else STORAGE_READ_ONLY
    except Exception as error:  # a bucket's client raises errors of its own
        log.warning("the artefact storage is not ready: %s", error)
        return STORAGE_READ_ONLY
    return ""


def _write_files(artefacts: Path) -> None:
    """Where uploads arrive, and where they stay. Permissions may differ."""
    for folder in (incoming_dir(), artefacts):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f".{uuid.uuid4().hex}.part"
        try:
            path.write_bytes(b"1")
        finally:
            path.unlink(missing_ok=True)


class BucketWrites:
    """Writes a small object, at most once per BUCKET_CACHE_S."""

    def __init__(self) -> None:
        self._expires = 0.0

    def write(self) -> None:
        if time.monotonic() >= self._expires:
            storage().save(BUCKET_OBJECT, ContentFile(b"1"))
            self._expires = time.monotonic() + BUCKET_CACHE_S


bucket = BucketWrites()
CHECKS = {
    "database": database_reason,
    "broker": broker_reason,
    "artefacts": storage_reason,
}

"""Artefacts into the storage and out: whole or not at all, once, never held in memory."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import connection
from django.test import AsyncRequestFactory, RequestFactory

from webapp.jobs import artefacts
from webapp.jobs.artefacts import (
    ArtefactRefused,
    full_disk_refused,
    incoming_dir,
    local_file,
    open_artefact,
    received,
    store,
    stream,
)
from webapp.jobs.models import Artefact, ArtefactKind

pytestmark = pytest.mark.django_db(transaction=True)

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MEGABYTE = 2**20


def put(content: bytes = CONTENT, origin: str = "test") -> Artefact:
    digest = hashlib.sha256(content).hexdigest()
    with received([content], digest, len(content)) as path:
        return store(path, digest, ArtefactKind.GLOBAL, origin)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_bytes_come_back(tmp_path: Path) -> None:
    artefact = put()
    with open_artefact(artefact) as source:
        assert source.read() == CONTENT
    with local_file(artefact) as path:
        assert path.read_bytes() == CONTENT
    assert files(tmp_path / "artefacts") == [tmp_path / "artefacts" / SHA256[:2] / SHA256]
    assert (artefact.size_bytes, artefact.kind) == (len(CONTENT), "global")
    assert list(incoming_dir().iterdir()) == []


def test_equal_bytes_are_stored_once(tmp_path: Path) -> None:
    first = put(origin="first")
    written = (tmp_path / "artefacts" / SHA256[:2] / SHA256).stat().st_mtime_ns
    assert put(origin="second") == first
    assert Artefact.objects.get().origin == "first"
    assert (tmp_path / "artefacts" / SHA256[:2] / SHA256).stat().st_mtime_ns == written


def test_equal_bytes_at_once_are_stored_once(tmp_path: Path) -> None:
    barrier = threading.Barrier(4)

    def one(_: int) -> str:
        barrier.wait()
        try:
            return put().sha256
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(4))) == {SHA256}
    assert len(files(tmp_path)) == 1 + len(list(tmp_path.glob("*.sqlite3*")))
    assert Artefact.objects.count() == 1


def test_a_row_that_a_crash_left_out_is_made_good(tmp_path: Path) -> None:
    put()
    Artefact.objects.all().delete()
    assert put().sha256 == SHA256


def test_a_write_that_was_killed_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class Dying(ContentFile):  # type: ignore[type-arg]
        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            yield CONTENT[:100]
            raise Killed

    with pytest.raises(Killed):
        artefacts.storage().save(Artefact.path_of(SHA256), Dying(CONTENT))
    assert not artefacts.storage().exists(Artefact.path_of(SHA256))
    assert files(tmp_path / "artefacts") == []
    assert put().sha256 == SHA256


def test_more_than_expected_is_refused_before_it_is_all_there() -> None:
    taken = 0

    def flood() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(1000)

    with pytest.raises(ArtefactRefused) as caught, received(flood(), SHA256, 10_000):
        pass
    assert caught.value.status == 413
    assert taken == 11
    assert list(incoming_dir().iterdir()) == []


def test_a_stream_that_breaks_leaves_nothing() -> None:
    def broken() -> Iterator[bytes]:
        yield CONTENT
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError), received(broken(), SHA256, 10**6):
        pass
    assert list(incoming_dir().iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_may_be_retried(number: int) -> None:
    with pytest.raises(ArtefactRefused) as caught, full_disk_refused():
        raise OSError(number, os.strerror(number))
    assert (caught.value.status, caught.value.retryable) == (507, True)


def test_another_problem_of_the_disk_is_what_it_is() -> None:
    with pytest.raises(PermissionError), full_disk_refused():
        raise PermissionError(errno.EACCES, "no")


def test_a_storage_elsewhere_is_fetched_first(settings: Any) -> None:
    """As with a bucket: no path on this machine."""
    memory = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    settings.STORAGES = {**settings.STORAGES, "artefacts": memory}
    artefact = put()
    with local_file(artefact) as path:
        assert path.read_bytes() == CONTENT
        assert path.parent == incoming_dir()
    assert not path.exists()


def test_memory_does_not_grow_with_the_artefact() -> None:
    """32 MB in and out, within a few buffers' worth of memory."""
    chunk = os.urandom(MEGABYTE)
    digest = hashlib.sha256(chunk * 32).hexdigest()
    tracemalloc.start()
    try:
        with received((chunk for _ in range(32)), digest, 32 * MEGABYTE) as path:
            artefact = store(path, digest, ArtefactKind.UPDATE, "test")
        answer = stream(RequestFactory().get("/"), artefact)
        size = sum(len(part) for part in answer.streaming_content)  # type: ignore[attr-defined]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 32 * MEGABYTE
    assert peak < 6 * MEGABYTE


async def test_over_asgi_it_is_streamed_as_well() -> None:
    from asgiref.sync import sync_to_async

    content = os.urandom(3 * MEGABYTE + 5)
    artefact = await sync_to_async(put)(content)
    request = AsyncRequestFactory().get("/", headers={"Range": "bytes=5-"})
    answer = stream(request, artefact)
    assert answer.is_async  # type: ignore[attr-defined]
    parts = [part async for part in answer]  # type: ignore[attr-defined]
    assert b"".join(parts) == content[5:]
    assert max(len(part) for part in parts) <= MEGABYTE

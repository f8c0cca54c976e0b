"""The artefact store: complete files only, stored once, constant memory."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.files.base import ContentFile
from django.db import connection
from django.test import RequestFactory

from webapp.jobs.artefacts import store as artefacts
from webapp.jobs.artefacts.locks import locked
from webapp.jobs.artefacts.partial_uploads import PartialUpload, part_path, received_bytes
from webapp.jobs.artefacts.store import (
    ArtefactRefused,
    incoming_dir,
    local_file,
    open_artefact,
    refuse_full_disk,
    remove_leftovers,
    store,
)
from webapp.jobs.artefacts.streaming import stream
from webapp.jobs.models import Artefact, ArtefactKind

pytestmark = pytest.mark.django_db(transaction=True)

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MEGABYTE = 2**20


def put(content: bytes = CONTENT, origin: str = "test") -> Artefact:
    digest = hashlib.sha256(content).hexdigest()
    part = PartialUpload(uuid4(), digest)
    try:
        part.append(content)
        artefact = store(part.path, part.sha256, ArtefactKind.GLOBAL, origin)
        part.discard()
        return artefact
    finally:
        part.close()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_stored_bytes_are_read_back(tmp_path: Path) -> None:
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


def test_missing_row_after_crash_is_created(tmp_path: Path) -> None:
    put()
    Artefact.objects.all().delete()
    assert put().sha256 == SHA256


def test_killed_write_leaves_no_file(tmp_path: Path) -> None:
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


def test_local_file_is_linked_not_copied() -> None:
    """It gets a second name; the first may go."""
    part = PartialUpload(uuid4(), SHA256)
    part.append(CONTENT)
    inode = part.path.stat().st_ino
    artefact = store(part.path, SHA256, ArtefactKind.UPDATE, "test")
    part.discard()
    part.close()
    with local_file(artefact) as path:
        assert path.stat().st_ino == inode
        assert path.stat().st_mode & 0o444 == 0o444, "a proxy may have to read it"
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM])
def test_file_is_copied_without_hard_links(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with open_artefact(put()) as source:
        assert source.read() == CONTENT


def test_partial_upload_resumes() -> None:
    pk = uuid4()
    for start in range(0, len(CONTENT), 999):
        part = PartialUpload(pk, SHA256)
        assert part.size == start == received_bytes(pk, SHA256)
        part.append(CONTENT[start : start + 500], memoryview(CONTENT)[start + 500 : start + 999])
        part.close()
    part = PartialUpload(pk, SHA256)
    assert part.sha256 == SHA256
    part.discard()
    part.close()
    assert list(incoming_dir().iterdir()) == []


def test_hashing_resumes_at_any_offset() -> None:
    for start in (0, 1, 6999, 7000):
        part = PartialUpload(uuid4(), SHA256)
        part.append(CONTENT[:start])
        part.hash_along()
        part.append(CONTENT[start:])
        assert part.sha256 == SHA256
        part.restart()
        part.append(b"other")
        assert part.sha256 == hashlib.sha256(b"other").hexdigest()
        part.discard()
        part.close()


def test_assignment_has_one_locked_upload() -> None:
    pk, other = uuid4(), "0" * 64
    part = PartialUpload(pk, SHA256)
    part.append(CONTENT)
    for sha256 in (SHA256, other):
        with pytest.raises(ArtefactRefused) as caught:
            PartialUpload(pk, sha256)
        assert (caught.value.status, caught.value.retryable) == (423, True)
    PartialUpload(uuid4(), SHA256).close()
    part.close()
    PartialUpload(pk, other).close()
    assert received_bytes(pk, SHA256) == 0, "another update replaces what had come of the former"
    assert list(incoming_dir().iterdir()) == []


def test_killed_process_leaves_bytes_but_no_lock(tmp_path: Path) -> None:
    pk = uuid4()
    pid = os.fork()
    if pid == 0:
        PartialUpload(pk, SHA256).append(CONTENT[:100])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    part = PartialUpload(pk, SHA256)
    assert part.size == 100
    part.discard()
    part.close()


def test_leftovers_are_removed(tmp_path: Path) -> None:
    gone, busy = uuid4(), uuid4()
    for pk in (gone, busy):
        part = PartialUpload(pk, SHA256)
        part.append(CONTENT)
        if pk == gone:
            part.close()
    folder = incoming_dir()
    old, young = folder / "tmp-fold", folder / "tmp-young"
    for path in (old, young):
        path.mkdir()
        (path / "global.safetensors").write_bytes(CONTENT)
    half, writing = (tmp_path / "artefacts" / "ab" / f".{name}.part" for name in ("a", "b"))
    half.parent.mkdir(parents=True)
    past = time.time() - 7 * 3600
    with writing.open("wb") as file, locked(file.fileno()):
        half.write_bytes(b"x")
        for path in (old / "global.safetensors", old, half, writing):
            os.utime(path, (past, past))
        needed = put()
        assert remove_leftovers() == 4
        assert writing.exists()
    assert not half.exists() and not old.exists() and young.exists()
    assert part_path(busy, SHA256).exists(), "somebody writes to it"
    assert received_bytes(gone, SHA256) == 0
    with open_artefact(needed) as source:
        assert source.read() == CONTENT
    part.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_retryable(number: int) -> None:
    with pytest.raises(ArtefactRefused) as caught, refuse_full_disk():
        raise OSError(number, os.strerror(number))
    assert (caught.value.status, caught.value.retryable) == (507, True)


def test_other_disk_errors_are_raised() -> None:
    with pytest.raises(PermissionError), refuse_full_disk():
        raise PermissionError(errno.EACCES, "no")


def test_remote_artefact_is_downloaded_first(settings: Any) -> None:
    """As with a bucket: no path on this machine."""
    memory = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    settings.STORAGES = {**settings.STORAGES, "artefacts": memory}
    artefact = put()
    with local_file(artefact) as path:
        assert path.read_bytes() == CONTENT
        assert path.parent == incoming_dir()
    assert not path.exists()


def test_memory_is_constant_in_artefact_size() -> None:
    """32 MB in and out, within a few buffers' worth of memory."""
    chunk = os.urandom(MEGABYTE)
    digest = hashlib.sha256(chunk * 32).hexdigest()
    tracemalloc.start()
    try:
        part = PartialUpload(uuid4(), digest)
        part.hash_along()
        for _ in range(32):
            part.append(chunk)
        artefact = store(part.path, part.sha256, ArtefactKind.UPDATE, "test")
        part.close()
        answer = stream(RequestFactory().get("/"), artefact)
        size = sum(len(piece) for piece in answer.streaming_content)  # type: ignore[attr-defined]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert artefact.sha256 == digest
    assert size == 32 * MEGABYTE
    assert peak < 6 * MEGABYTE

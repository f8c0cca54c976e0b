"""The artefact store: files are streamed, named by SHA-256 and stored once."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, cast
from uuid import UUID

from django.conf import settings
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, Storage, storages

from fedcore.errors import EdgewiseError
from fedcore.rounds.types import LEASED
from webapp.jobs.artefacts.atomic_storage import AtomicFileSystemStorage
from webapp.jobs.artefacts.locks import drop_lock_file, lock_file, try_lock
from webapp.jobs.models import Artefact, ArtefactKind, Assignment

CHUNK = 2**20
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# Names in ``incoming_dir``: an assignment's partial upload and its lock.
UPLOAD_NAME = re.compile(r"([0-9a-f]{32})(-[0-9a-f]{64}\.part|\.lock)$")
LEFTOVER_AGE_S = 6 * 3600.0  # longer than any aggregation or export works on one file
MIN_TEMPORARY_AGE_S = 60.0
FULL_TEXT = "the server's disk is full; free space there and try again"


class ArtefactRefused(EdgewiseError):
    """Bytes that cannot be stored. ``status`` and ``headers`` are those of the HTTP response."""

    def __init__(self, message: str, status: int, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = status in (408, 423, 507)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def storage() -> Storage:
    return storages["artefacts"]


def incoming_dir() -> Path:
    """Folder of files that are still being written; on the same disk as a local storage."""
    folder = settings.VAR_DIR / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    return Path(folder)


@contextmanager
def refuse_full_disk() -> Iterator[None]:
    """Turn the OSError of a full disk into ArtefactRefused (507)."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise ArtefactRefused(FULL_TEXT, 507) from error


def store(path: Path, sha256: str, kind: ArtefactKind, origin: str) -> Artefact:
    """Store a verified file, once; it must not be written to afterwards.

    A local storage links the file without copying. Raises ArtefactRefused (507) on a full disk.
    """
    name, place = Artefact.path_of(sha256), storage()
    claim(sha256)
    with refuse_full_disk():
        if not place.exists(name) and not (
            isinstance(place, AtomicFileSystemStorage) and place.adopt(path, name)
        ):
            with path.open("rb") as source:
                place.save(name, File(source))
    artefact, _ = Artefact.objects.get_or_create(
        sha256=sha256,
        defaults={"size_bytes": path.stat().st_size, "kind": kind, "origin": origin},
    )
    if artefact.removed_at is not None:
        Artefact.objects.filter(pk=sha256).update(removed_at=None)
        artefact.removed_at = None
    return artefact


@dataclass(frozen=True)
class SmallArtefact:
    """Verified bytes that fit into memory."""

    sha256: str
    data: bytes
    kind: ArtefactKind
    origin: str


def store_small(items: Sequence[SmallArtefact]) -> None:
    """Store several artefacts with few statements. Raises ArtefactRefused (507) on a full disk."""
    rows = Artefact.objects.filter(pk__in=[item.sha256 for item in items])
    rows.update(marked_at=None)  # as ``claim`` does
    place = storage()
    with refuse_full_disk():
        for item in items:
            name = Artefact.path_of(item.sha256)
            if not place.exists(name):
                place.save(name, ContentFile(item.data))
    new = [
        Artefact(sha256=item.sha256, size_bytes=len(item.data), kind=item.kind, origin=item.origin)
        for item in items
    ]
    Artefact.objects.bulk_create(new, ignore_conflicts=True)
    rows.exclude(removed_at=None).update(removed_at=None)


@lru_cache(maxsize=64)
def small_bytes(sha256: str) -> bytes:
    """The bytes of a small artefact, cached: they never change."""
    with storage().open(Artefact.path_of(sha256), "rb") as source:
        data: bytes = source.read()
    return data


def claim(sha256: str) -> bool:
    """Protect an artefact from the next garbage collection, which unmarks it.

    False where its bytes are not stored. See ``webapp.jobs.artefacts.garbage_collection``.
    """
    known = Artefact.objects.filter(pk=sha256)
    known.update(marked_at=None)
    return known.filter(removed_at=None).exists()


def removed_text(artefact: Artefact) -> str:
    """Why a removed artefact cannot be downloaded."""
    return (
        f"these bytes were removed on {artefact.removed_at:%Y-%m-%d %H:%M} UTC because nothing "
        "needed them; pin the model of a round to keep it (see docs/explanation/recovery.md)"
    )


def open_artefact(artefact: Artefact) -> IO[bytes]:
    return cast("IO[bytes]", storage().open(Artefact.path_of(artefact.sha256), "rb"))


@contextmanager
def local_file(artefact: Artefact) -> Iterator[Path]:
    """The artefact as a local file, downloaded first from a remote storage."""
    place = storage()
    if isinstance(place, FileSystemStorage):
        yield Path(place.path(Artefact.path_of(artefact.sha256)))
        return
    with tempfile.NamedTemporaryFile(dir=incoming_dir(), suffix=".fetched") as out:
        with place.open(Artefact.path_of(artefact.sha256), "rb") as source:
            for chunk in source.chunks(CHUNK):
                out.write(chunk)
        out.flush()
        yield Path(out.name)


def remove_leftovers() -> int:
    """Remove partial files of killed processes; returns the number of files and folders.

    Kept are uploads of running assignments, locked files, and files younger than LEFTOVER_AGE_S.
    """
    leased = [phase.value for phase in LEASED]
    leftovers = []
    for path in incoming_dir().iterdir():
        upload = UPLOAD_NAME.match(path.name)
        if upload is None:
            is_leftover = _age_s(path) > LEFTOVER_AGE_S
        else:
            running = Assignment.objects.filter(pk=UUID(upload.group(1)), phase__in=leased)
            is_leftover = not running.exists()
        if is_leftover:
            leftovers.append(path)
    place = storage()
    if isinstance(place, AtomicFileSystemStorage):
        for path in Path(place.location).glob("*/.*.part"):
            if _age_s(path) < MIN_TEMPORARY_AGE_S:
                continue
            # A lock that can be taken: the writing process is gone.
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                if try_lock(file.fileno()):
                    leftovers.append(path)
    return sum(_remove(path) for path in leftovers)


def _age_s(path: Path) -> float:
    """Seconds since the newest change in a file or folder; 0 where it is gone."""
    try:
        entries = [path, *path.rglob("*")] if path.is_dir() else [path]
        return time.time() - max(item.stat().st_mtime for item in entries)
    except FileNotFoundError:
        return 0.0


def _remove(path: Path) -> bool:
    """Whether it was removed; an upload is not while a request writes to it."""
    upload = UPLOAD_NAME.match(path.name)
    if upload is None:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return True
    lock = path.with_name(f"{upload.group(1)}.lock")
    handle = lock_file(lock)
    if handle is None:
        return False
    path.unlink(missing_ok=True)
    drop_lock_file(lock, handle)
    return True

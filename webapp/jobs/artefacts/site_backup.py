"""Backup of a running site into a folder, and restore into an empty site.

The database is dumped first, as a consistent snapshot, then the artefacts that it refers to. These
are immutable and stored before their rows, so only unneeded ones can be missing.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.db import connection
from django.utils import timezone

from fedcore.errors import EdgewiseError
from webapp.jobs.artefacts.store import storage
from webapp.jobs.models import Artefact

MANIFEST, ARTEFACTS, KEY = "manifest.json", "artefacts", "signing-key.pem"
SQLITE_FILE, DUMP_FILE = "database.sqlite3", "database.dump"
# Not in a backup, but needed to restore a site.
SECRETS = (
    "EDGEWISE_SECRET_KEY",
    "DATABASE_URL",
    "REDIS_URL",
    "the site's certificates (deploy/certs), if you made them yourself",
)
QUERY = "SELECT sha256, size_bytes FROM jobs_artefact WHERE removed_at IS NULL"


class BackupRefused(EdgewiseError):
    """The backup or restore cannot be done; the text says what to do."""


@dataclass(frozen=True)
class Manifest:
    """Contents of a backup.

    ``gone``: artefacts removed while it was written. ``signing_key``: whether it has the key by
    which devices know the site; a site that has never offered work has none.
    """

    made_at: str
    database: str
    artefacts: int
    bytes: int
    gone: list[str]
    kept_apart: tuple[str, ...] = SECRETS
    signing_key: bool = False


ArtefactRow = tuple[str, int]  # SHA-256, bytes


def backup(folder: Path) -> Manifest:
    """Write a backup into ``folder``, which appears only when it is complete.

    Raises BackupRefused where the folder exists already or a tool is missing.
    """
    if folder.exists():
        raise BackupRefused(f"{folder} exists already; name a new folder")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, mode=0o700)
    rows = DATABASES[connection.vendor].dump(part)
    sizes, gone = _save_artefacts(part, rows)
    signing_key = settings.SIGNING_KEY_FILE.exists()
    if signing_key:
        _copy(settings.SIGNING_KEY_FILE, part / KEY)
    made_at = timezone.now().isoformat()
    counts = (len(sizes), sum(sizes))
    manifest = Manifest(made_at, connection.vendor, *counts, gone, signing_key=signing_key)
    (part / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1))
    part.replace(folder)
    return manifest


class DatabaseCopy(Protocol):
    """How the database of one vendor gets into a backup, and back into an empty site."""

    def dump(self, folder: Path) -> list[ArtefactRow]:
        """Write a consistent snapshot; returns the artefacts that it refers to, perhaps more."""

    def load(self, folder: Path) -> None:
        """Put the snapshot into the empty database. Raises BackupRefused."""


class SqliteCopy:
    """A copy of the file, made by SQLite itself."""

    def dump(self, folder: Path) -> list[ArtefactRow]:
        path = folder / SQLITE_FILE
        copy = sqlite3.connect(path)
        try:
            connection.ensure_connection()
            connection.connection.backup(copy)
            return [(str(sha256), int(size)) for sha256, size in copy.execute(QUERY)]
        finally:
            copy.close()
            path.chmod(0o600)

    def load(self, folder: Path) -> None:
        name = str(connection.settings_dict["NAME"])
        connection.close()
        for suffix in ("-wal", "-shm"):
            Path(name + suffix).unlink(missing_ok=True)
        _copy(folder / SQLITE_FILE, Path(name))


class PostgresqlCopy:
    """A dump by PostgreSQL's own programs."""

    def dump(self, folder: Path) -> list[ArtefactRow]:
        """Artefacts are listed before and after the dump, as it may fall in between."""
        before, file = _artefact_rows(), folder / DUMP_FILE
        _run("pg_dump", "--format=custom", "--no-owner", f"--file={file}", _conninfo())
        file.chmod(0o600)
        return list({row[0]: row for row in (*before, *_artefact_rows())}.values())

    def load(self, folder: Path) -> None:
        words = ("--no-owner", "--exit-on-error", f"--dbname={_conninfo()}")
        _run("pg_restore", *words, str(folder / DUMP_FILE))


DATABASES: Mapping[str, DatabaseCopy] = {"sqlite": SqliteCopy(), "postgresql": PostgresqlCopy()}


def _artefact_rows() -> list[ArtefactRow]:
    with connection.cursor() as cursor:
        cursor.execute(QUERY)
        return [(str(sha256), int(size)) for sha256, size in cursor.fetchall()]


def _conninfo() -> str:
    """Connection string for libpq's tools; the password goes through the environment."""
    known = connection.settings_dict
    parts = {"host": "HOST", "port": "PORT", "user": "USER", "dbname": "NAME"}
    values = {word: str(known[key]) for word, key in parts.items() if known.get(key)}
    escaped = {
        word: value.replace("\\", "\\\\").replace("'", "\\'") for word, value in values.items()
    }
    return " ".join(f"{word}='{value}'" for word, value in escaped.items())


def _run(tool: str, *words: str) -> None:
    if shutil.which(tool) is None:
        raise BackupRefused(
            f"{tool} is not installed here; install PostgreSQL's client programs, or run it on the "
            "database's machine as docs/guides/back-up-and-restore.md says"
        )
    env = {**os.environ, "PGPASSWORD": str(connection.settings_dict.get("PASSWORD") or "")}
    done = subprocess.run([tool, *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackupRefused(f"{tool} failed: {done.stderr.strip()[-2000:]}")


def _local_storage() -> FileSystemStorage | None:
    place = storage()
    return place if isinstance(place, FileSystemStorage) else None


def _save_artefacts(folder: Path, rows: Iterable[ArtefactRow]) -> tuple[list[int], list[str]]:
    """Link or copy the files; returns their sizes, and the hashes of those removed meanwhile."""
    place = _local_storage()
    if place is None:  # a bucket's own versioning is its backup
        return [], []
    sizes, gone = [], []
    for sha256, size in rows:
        source = Path(place.path(Artefact.path_of(sha256)))
        try:
            _link(source, folder / ARTEFACTS / Artefact.path_of(sha256))
        except FileNotFoundError:
            gone.append(sha256)
            continue
        sizes.append(size)
    lost = Artefact.objects.filter(pk__in=gone, removed_at=None).values_list("pk", flat=True)
    if lost:
        raise BackupRefused(
            f"the storage has lost {len(lost)} artefacts that the database refers to, such as "
            f"{lost[0]}; restore them first"
        )
    return sizes, gone


def _link(source: Path, target: Path) -> None:
    """Hard-link an immutable file; copy it where the target is on another disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except FileNotFoundError:
        raise
    except OSError:
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part)
    part.chmod(0o600)
    part.replace(target)


def restore(folder: Path) -> Manifest:
    """Load a backup into this site, whose database must be empty. Raises BackupRefused."""
    try:
        values = json.loads((folder / MANIFEST).read_text())
        manifest = Manifest(**{**values, "kept_apart": tuple(values["kept_apart"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BackupRefused(f"{folder} is not a backup of a site: {error}") from error
    if manifest.database != connection.vendor:
        raise BackupRefused(
            f"the backup is of {manifest.database}, this site's DATABASE_URL is {connection.vendor}"
        )
    stored, present = folder / KEY, settings.SIGNING_KEY_FILE
    # Devices believe one key only, so a site that has made another one is not restored over it.
    if stored.exists() and present.exists() and stored.read_bytes() != present.read_bytes():
        raise BackupRefused(
            f"this site has another signing key than the backup, and devices would refuse its "
            f"work; move {present} away and restore again"
        )
    if connection.introspection.table_names():
        raise BackupRefused("this site's database is not empty; point DATABASE_URL at an empty one")
    if not present.exists() and stored.exists():
        _copy(stored, present)
    if place := _local_storage():
        for source in (folder / ARTEFACTS).glob("*/*"):
            _link(source, Path(place.path(str(source.relative_to(folder / ARTEFACTS)))))
    DATABASES[connection.vendor].load(folder)
    return manifest


def settle(manifest: Manifest) -> int:
    """Mark artefacts that were removed during the backup; returns the number of the others.

    Call it after the migrations. Raises BackupRefused where another artefact is missing.
    """
    Artefact.objects.filter(pk__in=manifest.gone).update(removed_at=timezone.now())
    place = storage()
    stored = Artefact.objects.filter(removed_at=None).values_list("pk", flat=True)
    lost = [sha256 for sha256 in stored if not place.exists(Artefact.path_of(sha256))]
    if lost:
        raise BackupRefused(
            f"{len(lost)} artefacts are not in this site's storage, such as {lost[0]}; add them"
        )
    return len(stored)

"""A running site into one folder, and out of it into an empty one.

The database first, by its own means, so that it is one moment of the site; then the artefacts that
this moment names. They never change, and were there before their rows, so none can be missing but
those that nobody needs any more.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.db import connection
from django.utils import timezone

from fedcore.errors import EdgewiseError
from webapp.jobs.artefacts.store import storage
from webapp.jobs.models import Artefact

MANIFEST, ARTEFACTS, KEY = "manifest.json", "artefacts", "signing-key.pem"
SQLITE_FILE, DUMP_FILE = "database.sqlite3", "database.dump"
# What no backup holds, and a site needs all the same.
SECRETS = (
    "EDGEWISE_SECRET_KEY",
    "DATABASE_URL",
    "REDIS_URL",
    "DEVICE_REDIS_URL",
    "the certificates of the devices' broker (deploy/certs)",
)
QUERY = (
    "SELECT sha256, size_bytes, marked_at IS NOT NULL FROM jobs_artefact WHERE removed_at IS NULL"
)


class BackupRefused(EdgewiseError):
    """The text says what to do."""


@dataclass(frozen=True)
class Manifest:
    """What a backup holds. ``gone``: artefacts that were removed while it was made."""

    made_at: str
    database: str
    artefacts: int
    bytes: int
    gone: list[str]
    kept_apart: tuple[str, ...] = SECRETS


def backup(folder: Path) -> Manifest:
    """Write a backup into ``folder``, which appears once it is whole.

    Raises BackupRefused where the folder is there already or a tool is missing.
    """
    if folder.exists():
        raise BackupRefused(f"{folder} is there already; name a folder that is not")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, mode=0o700)
    rows = _DUMPS[connection.vendor](part)
    sizes, gone = _take_artefacts(part, rows)
    if settings.SIGNING_KEY_FILE.exists():
        _copy(settings.SIGNING_KEY_FILE, part / KEY)
    manifest = Manifest(timezone.now().isoformat(), connection.vendor, len(sizes), sum(sizes), gone)
    (part / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1))
    part.replace(folder)
    return manifest


Row = tuple[str, int, bool]  # SHA-256, bytes, whether it is marked as needed by nobody


def _dump_sqlite(folder: Path) -> list[Row]:
    path = folder / SQLITE_FILE
    copy = sqlite3.connect(path)
    try:
        connection.ensure_connection()
        connection.connection.backup(copy)
        return [(str(sha), int(size), bool(idle)) for sha, size, idle in copy.execute(QUERY)]
    finally:
        copy.close()
        path.chmod(0o600)


def _dump_postgresql(folder: Path) -> list[Row]:
    """The artefacts are listed before the dump: what it names beyond them is listed again."""
    before = _listed()
    _run("pg_dump", "--format=custom", "--no-owner", f"--file={folder / DUMP_FILE}", _address())
    (folder / DUMP_FILE).chmod(0o600)
    return list({row[0]: row for row in (*before, *_listed())}.values())


def _listed() -> list[Row]:
    with connection.cursor() as cursor:
        cursor.execute(QUERY)
        return [(str(sha), int(size), bool(idle)) for sha, size, idle in cursor.fetchall()]


_DUMPS: Mapping[str, Callable[[Path], list[Row]]] = {
    "sqlite": _dump_sqlite,
    "postgresql": _dump_postgresql,
}


def _address() -> str:
    """How libpq's tools find the database; the password goes through the environment."""
    known = connection.settings_dict
    parts = {"host": "HOST", "port": "PORT", "user": "USER", "dbname": "NAME"}
    given = {word: known[key] for word, key in parts.items() if known.get(key)}
    return " ".join(f"{word}={_quoted(str(value))}" for word, value in given.items())


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _run(tool: str, *words: str) -> None:
    if shutil.which(tool) is None:
        raise BackupRefused(
            f"{tool} is not installed here; install PostgreSQL's client programs, or run it on the "
            "database's machine as docs/guides/run-a-site.md says"
        )
    env = {**os.environ, "PGPASSWORD": str(connection.settings_dict.get("PASSWORD") or "")}
    done = subprocess.run([tool, *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackupRefused(f"{tool} failed: {done.stderr.strip()[-2000:]}")


def _local_storage() -> FileSystemStorage | None:
    place = storage()
    return place if isinstance(place, FileSystemStorage) else None


def _take_artefacts(folder: Path, rows: Iterable[Row]) -> tuple[list[int], list[str]]:
    """Link or copy the files; returns their sizes, and the hashes of those that were removed."""
    place = _local_storage()
    if place is None:  # a bucket keeps them; its own versioning is their backup
        return [], []
    sizes, gone = [], []
    for sha256, size, _ in rows:
        source = Path(place.path(Artefact.path_of(sha256)))
        try:
            _link(source, folder / ARTEFACTS / Artefact.path_of(sha256))
        except FileNotFoundError:
            gone.append(sha256)
            continue
        sizes.append(size)
    lost = _still_there(gone)
    if lost:
        raise BackupRefused(
            f"the storage has lost {len(lost)} artefacts that the database names, such as "
            f"{lost[0]}; restore them first"
        )
    return sizes, gone


def _still_there(sha256s: list[str]) -> list[str]:
    """Those that the site, too, takes to be there."""
    rows = Artefact.objects.filter(pk__in=sha256s, removed_at=None)
    return [str(sha256) for sha256 in rows.values_list("pk", flat=True)]


def _link(source: Path, target: Path) -> None:
    """A second name for a file that never changes; a copy where that is another disk."""
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
    """Bring a backup into this site, whose database must be empty. Raises BackupRefused."""
    try:
        values = json.loads((folder / MANIFEST).read_text())
        manifest = Manifest(**{**values, "kept_apart": tuple(values["kept_apart"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BackupRefused(f"{folder} is no backup of a site: {error}") from error
    if manifest.database != connection.vendor:
        raise BackupRefused(
            f"the backup is of {manifest.database}, this site's DATABASE_URL is {connection.vendor}"
        )
    if connection.introspection.table_names():
        raise BackupRefused("this site's database is not empty; point DATABASE_URL to an empty one")
    if not settings.SIGNING_KEY_FILE.exists() and (folder / KEY).exists():
        _copy(folder / KEY, settings.SIGNING_KEY_FILE)
    _bring_artefacts(folder)
    _LOADS[connection.vendor](folder)
    return manifest


def _bring_artefacts(folder: Path) -> None:
    place = _local_storage()
    if place is None:
        return
    for source in (folder / ARTEFACTS).glob("*/*"):
        _link(source, Path(place.path(str(source.relative_to(folder / ARTEFACTS)))))


def _load_sqlite(folder: Path) -> None:
    name = str(connection.settings_dict["NAME"])
    connection.close()
    for suffix in ("-wal", "-shm"):
        Path(name + suffix).unlink(missing_ok=True)
    _copy(folder / SQLITE_FILE, Path(name))


def _load_postgresql(folder: Path) -> None:
    words = ("--no-owner", "--exit-on-error", f"--dbname={_address()}")
    _run("pg_restore", *words, str(folder / DUMP_FILE))


_LOADS: Mapping[str, Callable[[Path], None]] = {
    "sqlite": _load_sqlite,
    "postgresql": _load_postgresql,
}


def settle(manifest: Manifest) -> int:
    """After the migrations: rows of what was removed meanwhile say so. Raises BackupRefused where
    any other artefact is not there; returns how many are."""
    Artefact.objects.filter(pk__in=manifest.gone).update(removed_at=timezone.now())
    place = storage()
    here = Artefact.objects.filter(removed_at=None).values_list("pk", flat=True)
    lost = [sha256 for sha256 in here if not place.exists(Artefact.path_of(sha256))]
    if lost:
        raise BackupRefused(
            f"{len(lost)} artefacts are not in this site's storage, such as {lost[0]}; bring them"
        )
    return len(here)

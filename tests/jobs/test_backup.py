"""Backup and restore: complete or absent, and never over existing data."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from tests.federation import Federation
from webapp.jobs.artefacts import site_backup as backups
from webapp.jobs.artefacts.store import storage
from webapp.jobs.models import Artefact

pytestmark = pytest.mark.skipif(
    connection.vendor != "sqlite", reason="tests/stack/test_failures.py has PostgreSQL's"
)


def _backup(folder: Path) -> dict[str, Any]:
    call_command("backup", str(folder))
    return dict(json.loads((folder / "manifest.json").read_text()))


def test_backup_contains_all_referenced_artefacts(
    federation: Federation, tmp_path: Path, settings: Any
) -> None:
    federation.devices("pi-kitchen", "pi-porch")
    federation.started()
    folder = tmp_path / "backup"
    result = _backup(folder)
    copy = sqlite3.connect(folder / "database.sqlite3")
    names = [sha256 for (sha256,) in copy.execute("SELECT sha256 FROM jobs_artefact")]
    assert len(names) == result["artefacts"] >= 1
    for sha256 in names:
        source = Path(storage().path(Artefact.path_of(sha256)))
        copied = folder / "artefacts" / Artefact.path_of(sha256)
        assert copied.read_bytes() == source.read_bytes()
    assert result["signing_key"]
    assert (folder / "signing-key.pem").read_bytes() == settings.SIGNING_KEY_FILE.read_bytes()
    assert (folder / "signing-key.pem").stat().st_mode & 0o077 == 0
    assert "EDGEWISE_SECRET_KEY" in result["kept_apart"]


def test_backup_refuses_existing_folder(db: None, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="exists already; name a new folder"):
        call_command("backup", str(tmp_path))


def test_failed_backup_leaves_no_folder(federation: Federation, tmp_path: Path) -> None:
    federation.devices("pi-kitchen")
    job = federation.started()
    storage().delete(Artefact.path_of(str(federation.round(job).base_artefact_id)))
    with pytest.raises(CommandError, match="has lost 1 artefacts"):
        call_command("backup", str(tmp_path / "backup"))
    assert not (tmp_path / "backup").exists()


def test_artefacts_removed_meanwhile_are_recorded(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation.devices("pi-kitchen")
    job = federation.started()
    sha256 = str(federation.round(job).base_artefact_id)
    link = backups._link

    def removed_just_now(source: Path, target: Path) -> None:
        if source.name == sha256:
            Artefact.objects.filter(pk=sha256).update(removed_at=timezone.now())
            source.unlink()
        link(source, target)

    monkeypatch.setattr(backups, "_link", removed_just_now)
    assert _backup(tmp_path / "backup")["gone"] == [sha256]


def test_restore_refuses_nonempty_site(federation: Federation, tmp_path: Path) -> None:
    federation.devices("pi-kitchen")
    _backup(tmp_path / "backup")
    with pytest.raises(CommandError, match="is not empty; point DATABASE_URL at an empty one"):
        call_command("restore", str(tmp_path / "backup"))


def test_restore_refuses_another_signing_key(
    federation: Federation, tmp_path: Path, settings: Any
) -> None:
    federation.devices("pi-kitchen")
    federation.started()
    _backup(tmp_path / "backup")
    settings.SIGNING_KEY_FILE = tmp_path / "key.pem"
    settings.SIGNING_KEY_FILE.write_text("another key")
    with pytest.raises(CommandError, match="another signing key than the backup"):
        call_command("restore", str(tmp_path / "backup"))
    assert settings.SIGNING_KEY_FILE.read_text() == "another key"


def test_restore_refuses_other_folders(db: None, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="is not a backup of a site"):
        call_command("restore", str(tmp_path))


def test_restore_refuses_other_database_kind(db: None, tmp_path: Path) -> None:
    result = {"made_at": "", "database": "postgresql", "artefacts": 0, "bytes": 0}
    (tmp_path / "manifest.json").write_text(json.dumps({**result, "gone": [], "kept_apart": []}))
    with pytest.raises(CommandError, match="the backup is of postgresql"):
        call_command("restore", str(tmp_path))
    assert connection.vendor == "sqlite"

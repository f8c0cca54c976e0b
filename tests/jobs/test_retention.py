"""Garbage collection removes unneeded artefacts, and no others."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.utils import timezone

from tests.federation import Federation
from webapp.common.settings_checks import check_retention
from webapp.jobs.artefacts import garbage_collection
from webapp.jobs.artefacts.store import claim, storage, store
from webapp.jobs.models import Artefact, ArtefactKind, Assignment, Job, Round

pytestmark = pytest.mark.postgresql

GRACE_H = 1.0


@pytest.fixture(autouse=True)
def small(settings: Any) -> None:
    settings.KEEP_MODELS, settings.KEEP_UPDATES_H, settings.COLLECT_GRACE_H = 1, 0.0, GRACE_H


def _later(hours: float = 1.1 * GRACE_H) -> None:
    """Artefacts, marks and rounds become older."""
    back = timedelta(hours=hours)
    for artefact in Artefact.objects.all():
        marked = artefact.marked_at - back if artefact.marked_at else None
        Artefact.objects.filter(pk=artefact.pk).update(
            created_at=artefact.created_at - back, marked_at=marked
        )


def _collect_all() -> int:
    """Both steps."""
    _later()
    garbage_collection.collect()
    _later()
    return garbage_collection.collect().removed


def _here(sha256: str) -> bool:
    return storage().exists(Artefact.path_of(sha256))


def _stored(content: bytes, folder: Path) -> Artefact:
    path = folder / hashlib.sha256(content).hexdigest()
    path.write_bytes(content)
    return store(path, path.name, ArtefactKind.UPDATE, "device:test")


def test_finished_job_keeps_only_its_model(federation: Federation) -> None:
    federation.devices("pi-kitchen", "pi-porch")
    job = federation.run(federation.launch(rounds=3))
    assert _collect_all() > 0
    job.refresh_from_db()
    assert _here(str(job.global_artefact_id))
    updates = Assignment.objects.filter(update_artefact__isnull=False)
    assert updates.count() == 6, "rows still tell of what was there"
    assert not any(_here(str(row.update_artefact_id)) for row in updates)
    remaining = Artefact.objects.filter(removed_at=None)
    assert all(_here(artefact.pk) for artefact in remaining)
    best = {row.global_artefact_id for row in job.rounds.exclude(global_artefact=None)}
    assert {artefact.pk for artefact in remaining} <= best | {job.global_artefact_id}


def test_collection_during_job_changes_no_bits(
    federation: Federation,
) -> None:
    federation.devices("pi-kitchen", "pi-porch")
    undisturbed = federation.run(federation.launch(rounds=3, strategy={"name": "fedadam"}))
    job = federation.launch(rounds=3, strategy={"name": "fedadam"})
    for _ in range(30):
        if job.is_over:
            break
        _collect_all()
        for pi in federation.pis:
            pi.work()
            _collect_all()
        federation.work_off()
        job.refresh_from_db()
    assert job.phase == "completed", job.reason
    assert job.global_artefact_id == undisturbed.global_artefact_id


def test_removal_takes_two_passes(federation: Federation) -> None:
    federation.devices("pi-kitchen")
    federation.run(federation.launch(rounds=2))
    _later()
    assert garbage_collection.collect().removed == 0
    assert Artefact.objects.exclude(marked_at=None).exists()
    assert garbage_collection.collect().removed == 0, "the grace period has not passed"


def test_new_artefact_is_not_marked(tmp_path: Path, db: None) -> None:
    artefact = _stored(b"on its way to a row", tmp_path)
    garbage_collection.collect()
    artefact.refresh_from_db()
    assert artefact.marked_at is None


def test_unreferenced_artefact_is_deleted_with_row(tmp_path: Path, transactional_db: None) -> None:
    artefact = _stored(b"its upload was never reported", tmp_path)
    assert _collect_all() == 1
    assert not _here(artefact.pk)
    later = timezone.now() + timedelta(hours=2 * GRACE_H)
    garbage_collection.collect(later)
    assert not Artefact.objects.filter(pk=artefact.pk).exists()


def test_pinned_model_stays_until_unpinned(federation: Federation) -> None:
    federation.devices("pi-kitchen")
    job = federation.run(federation.launch(rounds=3))
    first = job.rounds.get(number=1)
    Round.objects.filter(job=job).update(evaluation={})
    Round.objects.filter(pk=first.pk).update(pinned_at=timezone.now())
    _collect_all()
    assert _here(str(first.global_artefact_id))
    Round.objects.filter(pk=first.pk).update(pinned_at=None)
    _collect_all()
    assert not _here(str(first.global_artefact_id))


def test_storing_again_unmarks(tmp_path: Path, transactional_db: None) -> None:
    artefact = _stored(b"twice", tmp_path)
    _later()
    garbage_collection.collect()
    _stored(b"twice", tmp_path)
    _later()
    assert garbage_collection.collect().removed == 0
    artefact.refresh_from_db()
    assert _here(artefact.pk)


def test_storing_again_restores_removed_bytes(tmp_path: Path, transactional_db: None) -> None:
    artefact = _stored(b"gone and back", tmp_path)
    assert _collect_all() == 1
    assert not claim(artefact.pk), "they are not here"
    again = _stored(b"gone and back", tmp_path)
    assert again.removed_at is None and again.marked_at is None
    assert _here(artefact.pk)


@pytest.mark.parametrize("turn", range(5))
def test_collection_races_with_upload(tmp_path: Path, transactional_db: None, turn: int) -> None:
    """Whoever is first: afterwards the row says that the bytes are here, and they are."""
    content = f"raced {turn}".encode()
    artefact = _stored(content, tmp_path)
    _later()
    garbage_collection.collect()
    _later()
    start = threading.Barrier(2)

    def run(call: Callable[[], object]) -> threading.Thread:
        def body() -> None:
            start.wait()
            call()
            connection.close()

        thread = threading.Thread(target=body)
        thread.start()
        return thread

    uploads = tmp_path / "again"
    uploads.mkdir()
    threads = [run(garbage_collection.collect), run(lambda: _stored(content, uploads))]
    for thread in threads:
        thread.join()
    row = Artefact.objects.get(pk=artefact.pk)
    assert row.removed_at is None
    assert _here(row.pk)


def test_last_moment_reference_keeps_artefact(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a pass has decided is looked at again under the lock."""
    federation.devices("pi-kitchen")
    job = federation.run(federation.launch(rounds=2))
    first = str(job.rounds.get(number=1).global_artefact_id)
    Round.objects.filter(job=job).update(evaluation={})
    _later()
    garbage_collection.collect()
    _later()
    monkeypatch.setattr(garbage_collection, "needed", lambda now: {})
    monkeypatch.setattr(garbage_collection, "_mark", lambda references, now, before: 0)
    Job.objects.filter(pk=job.pk).update(global_artefact=first)
    garbage_collection.collect()
    assert _here(first)


@pytest.mark.parametrize(
    ("collection", "ages", "text"),
    [
        ((0, 0.0, 1.0, 300.0), (24.0, 168.0, 8760.0), "EDGEWISE_KEEP_MODELS.*keep at least 1"),
        ((3, -1.0, 1.0, 300.0), (24.0, 168.0, 8760.0), "EDGEWISE_KEEP_UPDATES_H"),
        ((3, 0.0, 0.0, 300.0), (24.0, 168.0, 8760.0), "EDGEWISE_COLLECT_GRACE_H.*set at least"),
        ((3, 0.0, 1.0, 0.0), (24.0, 168.0, 8760.0), "EDGEWISE_COLLECT_INTERVAL_S"),
        ((3, 0.0, 1.0, 300.0), (168.0, 24.0, 8760.0), "EDGEWISE_KEEP_SAMPLES_H"),
    ],
)
def test_unsafe_retention_settings_stop_the_start(
    collection: tuple[int, float, float, float], ages: tuple[float, float, float], text: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=text):
        check_retention(collection, ages)

"""Aggregation of real tensors: result, interruptions, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fedcore.errors import FoldError
from tests.device import weights
from tests.disk import SmallDisk, small_disk
from tests.federation import Federation
from webapp.common import task_queue
from webapp.jobs.artefacts import download
from webapp.jobs.artefacts.store import incoming_dir
from webapp.jobs.lifecycle import services
from webapp.jobs.models import Artefact, Job, Round
from workers.aggregate import round_fold
from workers.aggregate.initial_model import initialise_job
from workers.aggregate.round_fold import fold_round
from workers.coordinator.tasks import advance_job

__all__ = ["small_disk"]


def collected(federation: Federation, **changes: Any) -> tuple[Job, Round]:
    """A job whose round 1 waits for its fold; the request for it is taken out of the outbox."""
    job = federation.started(**changes)
    for pi in federation.pis:
        pi.work()
    while federation.outbox.site:
        name, args = federation.outbox.site.pop(0)
        if name == task_queue.ADVANCE:
            advance_job(*args)
    current = federation.round(job)
    assert current.phase == "aggregating"
    return job, current


def test_mean_is_weighted_by_examples(federation: Federation) -> None:
    federation.device("pi-a", number=1.0, examples=10)
    federation.device("pi-b", number=4.0, examples=30)
    _job, current = collected(federation)
    before = weights(str(current.base_artefact_id))
    fold_round(current.pk)
    current.refresh_from_db()
    after = weights(str(current.global_artefact_id))
    for name in before:
        torch.testing.assert_close(after[name], before[name] + 0.25 * 1 + 0.75 * 4)
    assert current.fold["update_norms"]["1"] > current.fold["update_norms"]["0"] > 0
    assert current.fold["bytes_read"] > 0
    assert current.fold["seconds"] >= 0


def test_aggregation_is_idempotent(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b")
    job, current = collected(federation)
    fold_round(current.pk)
    current.refresh_from_db()
    artefacts = set(Artefact.objects.values_list("pk", flat=True))
    fold_round(current.pk)
    again = Round.objects.get(pk=current.pk)
    assert again.global_artefact_id == current.global_artefact_id
    assert again.aggregated_at == current.aggregated_at
    assert set(Artefact.objects.values_list("pk", flat=True)) == artefacts
    assert federation.log(job).count("round 1: folded 2 updates") == 1


def test_kill_between_storing_and_row_is_recovered(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next worker finds the same bytes and goes on."""
    federation.devices("pi-a", "pi-b")
    job, current = collected(federation)

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    conclude = round_fold._conclude_round
    monkeypatch.setattr(round_fold, "_conclude_round", killed)
    with pytest.raises(Killed):
        fold_round(current.pk)
    monkeypatch.setattr(round_fold, "_conclude_round", conclude)
    current.refresh_from_db()
    assert (current.phase, current.global_artefact_id) == ("aggregating", None)
    stored = set(Artefact.objects.filter(kind="global").values_list("pk", flat=True))
    federation.later(61)
    federation.reconcile()
    current.refresh_from_db()
    assert current.global_artefact_id in stored
    assert federation.run(job).phase == "completed"


def test_result_and_job_model_are_stored_together(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the two leaves neither, and the fold is done again."""
    federation.devices("pi-a")
    job, current = collected(federation)
    result = round_fold.job_event

    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(round_fold, "job_event", dies)
    with pytest.raises(KeyboardInterrupt):
        fold_round(current.pk)
    monkeypatch.setattr(round_fold, "job_event", result)
    current.refresh_from_db()
    job.refresh_from_db()
    assert current.phase == "aggregating"
    assert job.global_artefact_id == current.base_artefact_id
    fold_round(current.pk)
    current.refresh_from_db()
    job.refresh_from_db()
    assert job.global_artefact_id == current.global_artefact_id != current.base_artefact_id


def test_fold_of_cancelled_job_is_dropped(federation: Federation) -> None:
    federation.devices("pi-a")
    job, current = collected(federation)
    services.move(job.pk, "cancel", None)
    base = current.base_artefact_id
    fold_round(current.pk)
    federation.work_off()
    job.refresh_from_db()
    current.refresh_from_db()
    assert (job.phase, job.global_artefact_id) == ("cancelled", base)
    assert (current.phase, current.reason) == ("failed", "the job was cancelled")


def test_fold_of_paused_job_is_stored(federation: Federation) -> None:
    federation.devices("pi-a")
    job, current = collected(federation, rounds=2)
    services.move(job.pk, "pause", None)
    fold_round(current.pk)
    federation.work_off()
    current.refresh_from_db()
    job.refresh_from_db()
    assert (current.phase, job.phase) == ("closed", "paused")
    assert job.global_artefact_id == current.global_artefact_id
    services.move(job.pk, "resume", None)
    federation.work_off()
    assert federation.round(job).number == 2


def test_fedadam_keeps_its_moments_through_a_pause(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b")
    adam = {"strategy": {"name": "fedadam", "server_learning_rate": 0.1}}
    smooth = federation.run(federation.launch(rounds=3, **adam))
    bumpy = federation.started(rounds=3, **adam)
    for _ in range(4):  # to the middle of round 2
        for pi in federation.pis:
            pi.work()
        federation.work_off()
        if federation.round(bumpy).number == 2:
            break
    federation.pis[0].work()
    for name in ("pause", "resume"):
        services.move(bumpy.pk, name, None)
        federation.work_off()
    federation.run(bumpy)
    assert bumpy.rounds.get(number=2, attempt=2).phase == "closed"
    assert bumpy.global_artefact_id == smooth.global_artefact_id
    states = [row.state_artefact_id for row in smooth.rounds.filter(number__gt=0)]
    assert len(set(states)) == 3
    assert set(weights(str(states[-1]))), "moments of every tensor"


def test_missing_update_does_not_stop_worker(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    """A storage that lost a file costs that update; the others are folded."""
    federation.devices("pi-a", "pi-b")
    job, current = collected(federation)
    part = current.assignments.filter(task="train").first()
    assert part is not None
    from webapp.jobs.artefacts.store import storage

    storage().delete(Artefact.path_of(str(part.update_artefact_id)))
    fold_round(current.pk)
    federation.work_off()
    job.refresh_from_db()
    assert "pi-a, round 1: update refused: " in federation.log(job)
    assert federation.run(job).phase == "completed"


def test_failed_fold_fails_job_with_reason(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation.devices("pi-a")
    job, current = collected(federation)

    def cannot(*_: Any) -> None:
        raise FoldError("the server state belongs to fedadam, not of fedavg; start without it")

    monkeypatch.setattr(round_fold, "fold_and_serve", cannot)
    fold_round(current.pk)
    federation.work_off()
    job.refresh_from_db()
    assert job.phase == "failed"
    assert job.reason.startswith("the server state belongs to fedadam")
    assert list(incoming_dir().iterdir()) == []


def test_fold_on_full_disk_is_retried(federation: Federation, small_disk: SmallDisk) -> None:
    federation.devices("pi-a", "pi-b")
    job, current = collected(federation)
    small_disk.fill()
    fold_round(current.pk)
    job.refresh_from_db()
    assert job.phase == "running"
    assert "round 1: the server's disk is full; free space there" in federation.log(job)
    assert small_disk.leftovers() == []
    small_disk.free()
    federation.later(61)
    federation.reconcile()
    assert federation.run(job).phase == "completed"


def test_initial_model_on_full_disk_is_retried(
    federation: Federation, small_disk: SmallDisk
) -> None:
    federation.devices("pi-a")
    small_disk.fill()
    job = federation.launch()
    job.refresh_from_db()
    assert job.phase == "queued"
    assert "cannot store the initial model: the server's disk is full" in federation.log(job)
    assert small_disk.leftovers() == []
    small_disk.free()
    federation.later(61)
    federation.reconcile()
    assert federation.run(job).phase == "completed"


def test_initial_model_is_written_once(federation: Federation) -> None:
    federation.devices("pi-a")
    job = federation.launch()
    job.refresh_from_db()
    first = job.global_artefact_id
    initialise_job(job.pk)
    job.refresh_from_db()
    assert job.global_artefact_id == first
    assert federation.log(job).count("initial model ready") == 1
    info = job.model_info
    assert 0 < info["trainable_parameters"] < info["parameters"]
    assert info["payload_bytes"] == job.global_artefact.size_bytes  # type: ignore[union-attr]
    assert info["architecture"]["d_model"] == 32


def test_full_fine_tuning_folds_every_weight(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b")
    job = federation.run(federation.launch(adapter={"kind": "full"}))
    assert job.phase == "completed"
    after = weights(str(job.global_artefact_id))
    before = weights(str(job.rounds.get(number=1).base_artefact_id))
    assert "lm_head.weight" in after
    for name in before:
        torch.testing.assert_close(after[name], before[name] + 1.5)


def test_merged_model_is_made_on_request(federation: Federation) -> None:
    import zipfile

    from webapp.jobs.artefacts.store import open_artefact

    federation.devices("pi-a")
    job = federation.run(federation.launch())
    download.request_merged(job)
    download.request_merged(job)
    federation.work_off()
    job.refresh_from_db()
    assert job.merged_artefact is not None
    with open_artefact(job.merged_artefact) as source, zipfile.ZipFile(source) as archive:
        assert {"config.json", "model.safetensors"} <= {
            name.split("/")[-1] for name in archive.namelist()
        }
    assert list(incoming_dir().iterdir()) == []

"""Sharded aggregation: the same bits, also after interruptions."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from fedcore.aggregation import block_pass, sharding
from fedcore.aggregation.fold_task import NextFiles
from fedcore.aggregation.next_model import fold_files
from tests.device import weights
from tests.federation import Federation
from tests.jobs.test_aggregation import collected
from tests.jobs.test_races import at_once
from webapp.common import task_queue
from webapp.jobs.artefacts.store import incoming_dir, storage
from webapp.jobs.lifecycle import services
from webapp.jobs.models import Artefact, FoldPlan, FoldShard, Job, Round
from workers.aggregate import round_fold, shard_fold
from workers.aggregate.round_fold import fold_round
from workers.aggregate.shard_fold import fold_one


@pytest.fixture(autouse=True)
def shared_out(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and shards so small that a tiny model has several."""
    settings.AGGREGATE_WORKERS, settings.FOLD_SHARD_BYTES = 2, 3_000
    for module in (block_pass, sharding):
        monkeypatch.setattr(module, "BLOCK", 256)


def undivided(row: Round, folder: Path) -> str:
    """SHA-256 of what the round's fold gives in one piece."""
    with ExitStack() as stack:
        before, updates = round_fold.open_files(row, stack)
        after = NextFiles(folder / "after", folder / "state")
        done = fold_files(row.job.job_spec, before, updates, after)
    return done.global_frame.sha256


def take_shard_requests(federation: Federation) -> list[int]:
    """Takes the requests for shards out of the outbox."""
    result = [args[0] for name, args in federation.outbox.site if name == task_queue.FOLD_SHARD]
    others = [item for item in federation.outbox.site if item[0] != task_queue.FOLD_SHARD]
    federation.outbox.site[:] = others
    return result


def begun(federation: Federation, **changes: Any) -> tuple[Job, Round, list[int]]:
    """A round whose fold has just been shared out, and its shards."""
    job, current = collected(federation, **changes)
    fold_round(current.pk)
    result = take_shard_requests(federation)
    assert len(result) > 2
    return job, current, result


def left(current: Round) -> int:
    return FoldShard.objects.filter(plan__round=current, artefact=None).count()


def test_sharded_fold_equals_single_fold(federation: Federation, tmp_path: Path) -> None:
    federation.devices("pi-a", "pi-b", "pi-c")
    adam = {"name": "fedadam", "server_learning_rate": 0.1, "clip_update_norm": 3.0}
    job, current, result = begun(federation, strategy=adam)
    whole = undivided(current, tmp_path)
    fold_one(result[1])
    fold_one(result[0])
    assert Round.objects.get(pk=current.pk).phase == "aggregating"
    for item in result[2:]:
        fold_one(item)
    current.refresh_from_db()
    assert current.global_artefact_id == whole
    assert current.fold["slots"] == [0, 1, 2]
    assert current.fold["update_norms"]["1"] > current.fold["update_norms"]["0"] > 0
    assert current.fold["aggregation_error"] is not None
    assert federation.run(job).phase == "completed"


@pytest.mark.parametrize("in_shards", [True, False])
def test_scaffold_control_counts_participants(
    federation: Federation, settings: Any, in_shards: bool
) -> None:
    """Two of three devices, as the minimum exceeds the fraction: c = -2/3 d / (K eta)."""
    for name in ("pi-a", "pi-b", "pi-c"):
        federation.device(name, number=3.0)
    settings.AGGREGATE_WORKERS = 2 if in_shards else 1
    changes: dict[str, Any] = {
        "strategy": {"name": "scaffold"},
        "train": {"optimizer": "sgd", "local_steps": 4, "learning_rate": 0.5},
        "participation": {"fraction": 0.1, "minimum": 2},
    }
    if in_shards:
        _, current, result = begun(federation, **changes)
        for item in result:
            fold_one(item)
    else:
        _, current = collected(federation, **changes)
        fold_round(current.pk)
    current.refresh_from_db()
    assert len(current.fold["slots"]) == 2
    assert current.state_artefact_id
    for c in weights(current.state_artefact_id).values():
        torch.testing.assert_close(c, torch.full_like(c, -2 / 3 * 3.0 / (4 * 0.5)))


@pytest.mark.postgresql
def test_concurrent_and_repeated_shards_are_harmless(
    federation: Federation, tmp_path: Path
) -> None:
    federation.devices("pi-a", "pi-b")
    job, current, result = begun(federation)
    whole = undivided(current, tmp_path)

    def worker(order: list[int]) -> None:
        for item in order:
            fold_one(item)

    at_once([lambda: worker(result), lambda: worker(result[::-1])])
    current.refresh_from_db()
    assert current.global_artefact_id == whole
    assert federation.log(job).count("round 1: folded 2 updates") == 1
    assert federation.log(job).count("round 1: folding in") == 1
    assert federation.run(job).phase == "completed"


@pytest.mark.postgresql
def test_repeated_request_splits_once(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b")
    job, current = collected(federation)
    at_once([lambda: fold_round(current.pk)] * 3)
    rows = FoldShard.objects.filter(plan__round=current)
    assert set(take_shard_requests(federation)) == set(rows.values_list("pk", flat=True))
    assert federation.log(job).count("folding in") == 1


def test_shards_are_removed_after_the_fold(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b")
    job = federation.run(federation.launch())
    assert job.phase == "completed"
    assert "folding in" in federation.log(job)
    assert not FoldPlan.objects.exists()
    remaining = Artefact.objects.filter(kind="shard")
    assert remaining.exists()
    assert not any(storage().exists(Artefact.path_of(item.sha256)) for item in remaining)
    assert list(incoming_dir().iterdir()) == []


def test_worker_killed_in_shard_is_recovered(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its shard is requested again once its claim is old; finished shards are reused."""
    federation.devices("pi-a", "pi-b")
    job, current, result = begun(federation)
    whole = undivided(current, tmp_path)

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(shard_fold, "store", killed)
        fold_one(result[0])
    for item in result[1:]:
        fold_one(item)
    assert left(current) == 1
    fold_round(current.pk)
    assert take_shard_requests(federation) == [], "its worker may still fold it"
    federation.later(61)
    federation.reconcile()
    current.refresh_from_db()
    assert current.global_artefact_id == whole
    assert federation.run(job).phase == "completed"


def test_lost_shard_request_is_repeated(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b")
    job, current, result = begun(federation)
    fold_one(result[-1])
    federation.later(61)
    federation.reconcile()
    assert FoldPlan.objects.filter(round=current).count() == 0
    assert federation.run(job).phase == "completed"


def test_lost_shard_bytes_are_recomputed(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b")
    job, current, result = begun(federation)
    fold_one(result[0])
    stored = FoldShard.objects.get(pk=result[0]).artefact_id
    storage().delete(Artefact.path_of(str(stored)))
    for item in result[1:]:
        fold_one(item)
    assert take_shard_requests(federation) == [result[0]]
    fold_one(result[0])
    current.refresh_from_db()
    assert current.global_artefact_id
    assert federation.run(job).phase == "completed"


def test_nonfinite_update_is_refused_and_fold_restarted(
    federation: Federation,
) -> None:
    pis = federation.devices("pi-a", "pi-b", "pi-c")
    job = federation.started()

    def spoil(tensors: dict[str, Any]) -> None:
        last = sorted(tensors)[-1]
        tensors[last].view(-1)[-1] = math.nan

    for pi in pis:
        work = pi.take()
        spoilt = {"mend": spoil} if pi is pis[1] else {}
        content = pi.update_for(work, **spoilt)
        assert pi.upload(work["assignment"], content).status_code < 300
        assert pi.report(work["assignment"], content).status_code == 200
        pi.done.add(work["assignment"])
    federation.work_off()
    assert federation.parts(job)["pi-b", 1] == "refused"
    log = federation.log(job)
    assert "pi-b, round 1: update refused: tensor" in log and "holds NaN or infinity" in log
    assert log.count("folding in") == 2
    assert federation.round(job).fold["slots"] == [0, 2]
    assert federation.run(job).phase == "completed"


def test_shards_of_cancelled_job_are_dropped(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b")
    job, current, result = begun(federation)
    fold_one(result[0])
    services.move(job.pk, "cancel", None)
    federation.work_off()
    for item in result[1:]:
        fold_one(item)
    current.refresh_from_db()
    assert (current.phase, current.global_artefact_id) == ("failed", None)
    assert not FoldPlan.objects.exists()


@pytest.mark.parametrize(("workers", "shard_bytes"), [(1, 3_000), (2, 0), (2, 10**9)])
def test_small_fold_is_not_sharded(
    workers: int, shard_bytes: int, federation: Federation, settings: Any
) -> None:
    settings.AGGREGATE_WORKERS, settings.FOLD_SHARD_BYTES = workers, shard_bytes
    federation.devices("pi-a", "pi-b")
    job = federation.run(federation.launch())
    assert job.phase == "completed"
    assert "folding in" not in federation.log(job)


@pytest.mark.parametrize("rule", ["fedex", "flexlora", "stack"])
def test_products_are_never_sharded(federation: Federation, rule: str) -> None:
    """They are no rows of coordinates, and small; the fold is one piece wherever it runs."""
    federation.devices("pi-a", "pi-b")
    job = federation.run(federation.launch(adapter={"aggregation": rule}))
    assert job.phase == "completed"
    assert "folding in" not in federation.log(job)
    assert federation.round(job).fold["aggregation_error"] == pytest.approx(0.0, abs=1e-6)

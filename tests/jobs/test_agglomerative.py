"""An agglomerative job on real trainers and the server's rows."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from fedcore.errors import ModelError
from fedcore.methods.agglomerative.node_model import export
from tests.federation import Federation
from tests.jobs.nodes import (
    HUB,
    LEAVES,
    Node,
    at_the_fold,
    digest,
    same_bits,
    simulated,
    tree_options,
)
from webapp.accounts.models import User
from webapp.jobs.analysis import snapshot
from webapp.jobs.artefacts import download
from webapp.jobs.artefacts.store import open_artefact
from webapp.jobs.lifecycle import pinning, services
from webapp.jobs.models import Artefact, ArtefactKind, Assignment
from workers.agent.assignment import private_folders


def test_agglomerative_job_equals_simulation(
    federation: Federation, nodes: dict[str, Node], larger: Path
) -> None:
    job = federation.run(federation.launch(**tree_options(larger)))
    assert job.phase == "completed", job.reason
    rounds = same_bits(federation, nodes, job)
    first, one, two = job.rounds.order_by("number")
    # Devices are evaluated with their own models, the parent on the held-back part of the bridge.
    for row, result in zip((first, one, two), rounds, strict=True):
        assert row.evaluation["loss"] == pytest.approx(result.levels[0].mean["loss"], rel=1e-6)
    hub = Assignment.objects.get(round=two, task="fold")
    cloud = rounds[2].levels[1].evaluations[HUB]
    assert hub.metrics["bridge_loss"] == pytest.approx(cloud.loss, rel=1e-9)
    assert two.fold["clusters"][0]["slots"] == [0, 1] and two.fold["slots"] == [2]
    # Only logits travel, except for the parent's model in the last round.
    sent = Artefact.objects.filter(kind=ArtefactKind.UPDATE)
    shapes = [set(read_stored(item.pk)) for item in sent]
    assert len(shapes) == 6 and shapes.count({"values", "places", "rest"}) == 5
    assert "hub, round 2: distilled pi-a, pi-b: " in federation.log(job)


def read_stored(sha256: str) -> dict[str, Any]:
    with open_artefact(Artefact.objects.get(pk=sha256)) as source:
        return load(source.read())


def test_parent_model_download_needs_last_round(
    federation: Federation, nodes: dict[str, Node], larger: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSeq2SeqLM

    job = federation.launch(**tree_options(larger))
    while federation.round(job).number < 2:
        for pi in federation.pis:
            pi.work()
        federation.work_off()
    job.refresh_from_db()
    assert snapshot.snapshot(job)["artefacts"]["merged_url"] is None
    with pytest.raises(download.NoModel, match="parent sends its model in the last round"):
        download.model_after(job, None)
    with pytest.raises(services.MoveRefused, match="has no model to keep"):
        pinning.pin(job.rounds.get(number=1).pk, User.objects.create_user("anna"))

    job = federation.run(job)
    urls = snapshot.snapshot(job)["artefacts"]
    assert urls["merged_url"] and urls["adapter_url"] is None  # every weight of the parent trains
    download.request_merged(job)
    federation.work_off()
    job.refresh_from_db()
    assert job.merged_artefact is not None
    with open_artefact(job.merged_artefact) as source:
        zipfile.ZipFile(io.BytesIO(source.read())).extractall(tmp_path / "taken")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "taken")
    trained = load(nodes[HUB].model(job, 2).read_bytes())
    assert model.config.d_model == 48
    assert torch.equal(model.state_dict()["shared.weight"], trained["shared.weight"])


def test_leaf_model_is_read_from_private_folder(
    federation: Federation, nodes: dict[str, Node], larger: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSeq2SeqLM

    from fedcore.formats.wire_offer import WireOffer

    job = federation.run(federation.launch(**tree_options(larger)))
    folder = nodes["pi-a"].folder / "own"
    before = {path.name for path in (folder / str(job.pk)).iterdir()}
    assert {"own-model-000001-000.safetensors", "bridge.jsonl"} < before
    private_folders.remove_finished_jobs(folder, WireOffer(jobs=frozenset()))  # the job is over
    remaining = {path.name for path in (folder / str(job.pk)).iterdir()}
    assert remaining == {"own-model-000002-000.safetensors", "own-model.json"}
    out = export(folder / str(job.pk), tmp_path / "out")
    model = AutoModelForSeq2SeqLM.from_pretrained(out)
    base = AutoModelForSeq2SeqLM.from_pretrained(federation.model)
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"  # adapted
    assert model.config.d_model == 32
    assert not torch.equal(model.state_dict()[name], base.state_dict()[name])
    with pytest.raises(ModelError, match="not the private folder of an agglomerative job"):
        export(tmp_path, tmp_path / "other")


def test_offline_parent_delays_the_round(
    federation: Federation, nodes: dict[str, Node], larger: Path
) -> None:
    job = federation.started(**tree_options(larger))
    federation.lose(nodes[HUB])
    for leaf in LEAVES:
        nodes[leaf].work()
    federation.work_off()
    assert federation.round(job).phase == "folding" and not federation.parts(job, "fold")
    nodes[HUB].hello("boot-again")
    nodes[HUB].start()
    job = federation.run(job)
    assert job.phase == "completed", job.reason
    same_bits(federation, nodes, job)


def test_lost_parent_fails_job_and_retry_gives_same_bits(
    federation: Federation, nodes: dict[str, Node], larger: Path
) -> None:
    job = federation.started(**tree_options(larger))
    hub = nodes[HUB]
    work = at_the_fold(federation, nodes, job, 2)
    hub.done_for(work)  # it has trained and saved its model, and is silent from now on
    federation.later(20_000)
    federation.lose(hub)
    federation.reconcile()
    job.refresh_from_db()
    assert job.phase == "failed"
    assert "only hub can fold" in job.reason and "by the deadline" in job.reason
    hub.start()
    hub.hello("boot-again")
    for leaf in LEAVES:
        nodes[leaf].hello(f"boot-{leaf}")
    services.move(job.pk, "retry", None)
    job = federation.run(job)
    assert job.phase == "completed", job.reason
    assert federation.round(job).attempt == 2
    same_bits(federation, nodes, job)


def test_tree_with_one_child_runs(
    federation: Federation, node: Callable[..., Node], larger: Path
) -> None:
    nodes = {"pi-a": node("pi-a"), HUB: node(HUB, "aggregator")}
    job = federation.run(federation.launch(**tree_options(larger, tree={"parents": ["auto"]})))
    assert job.phase == "completed", job.reason
    assert (
        digest(nodes["pi-a"].model(job, 2)) == simulated(federation, nodes, job)[2].sha256["pi-a"]
    )


def test_devices_outside_the_tree_do_not_participate(
    federation: Federation, nodes: dict[str, Node], node: Callable[..., Node], larger: Path
) -> None:
    """Where the job names no devices, the tree does."""
    node("pi-c")
    job = federation.launch(**tree_options(larger))
    assert sorted(job.participants.values_list("device__name", flat=True)) == [HUB, *LEAVES]

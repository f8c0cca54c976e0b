"""Frames and launches that an agglomerative job refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from fedcore.errors import SpecError
from tests.fedcore.conftest import make_model
from tests.federation import Federation
from tests.jobs.nodes import (
    HUB,
    LEAVES,
    Node,
    at_the_fold,
    tree_options,
)
from webapp.jobs.lifecycle import services
from webapp.jobs.models import Job


def mend(content: bytes, **changes: Any) -> bytes:
    """A frame with other metadata or tensors."""
    from safetensors import safe_open

    path = Path(changes.pop("folder")) / "mended.safetensors"
    path.write_bytes(content)
    with safe_open(path, "pt") as frame:
        meta = dict(frame.metadata())
    tensors = load(content)
    changes.get("tensors", lambda _: None)(tensors)
    return save(tensors, {**meta, **changes.get("meta", {})})


def fewer(tensors: dict[str, Any]) -> None:
    tensors["values"] = tensors["values"][:-1].clone()


def none_at_all(tensors: dict[str, Any]) -> None:
    tensors["values"] = torch.full_like(tensors["values"], -9.0)


def without_one(tensors: dict[str, Any]) -> None:
    tensors.pop(sorted(tensors)[0])


def renamed(tensors: dict[str, Any]) -> None:
    tensors["mine"] = tensors.pop(sorted(tensors)[0])


def unsound(tensors: dict[str, Any]) -> None:
    tensors[sorted(tensors)[0]].fill_(float("nan"))


WRONG = (
    ({"meta": {"kind": "update"}}, "kind is 'update', not 'bridge-logits'"),
    ({"meta": {"round": "2"}}, "round is '2', not '1'"),
    ({"meta": {"bridge": "0" * 64}}, "the frame has bridge='000"),
    ({"meta": {"temperature": "1.0"}}, "temperature='1.0' where '2.0' is due"),
    ({"tensors": fewer}, "does not hold 6 tokens of each of"),
)


def test_leaf_frame_header_is_checked(
    federation: Federation, nodes: dict[str, Node], larger: Path
) -> None:
    federation.started(**tree_options(larger))
    leaf = nodes["pi-a"]
    work = leaf.take()
    outcome, content = leaf.done_for(work)
    assert content is not None
    for changes, message in WRONG:
        bad = mend(content, folder=leaf.folder, **changes)
        answer = leaf.upload(work["assignment"], bad)
        assert answer.status_code == 422 and message in answer.json()["detail"], answer.content
    big = content + b"0" * 100_000
    assert leaf.upload(work["assignment"], big).status_code == 413
    other = leaf.upload(work["assignment"], content, "0" * 64)
    assert other.status_code == 422 and "SHA-256" in other.json()["detail"]
    assert leaf.upload(work["assignment"], content).status_code == 204
    assert leaf.report(work, outcome, content).status_code == 200


def test_parent_must_report_as_one_device(
    federation: Federation, nodes: dict[str, Node], larger: Path
) -> None:
    """Its numbers are looked at before any child hears them."""
    job = federation.started(**tree_options(larger))
    hub = nodes[HUB]
    work = at_the_fold(federation, nodes, job, 1)
    outcome, content = hub.done_for(work)
    assert content is not None
    bad = mend(content, folder=hub.folder, tensors=none_at_all)
    assert hub.upload(work["assignment"], bad).status_code == 204
    assert hub.report(work, outcome, bad).status_code == 200
    federation.work_off()
    job.refresh_from_db()
    assert job.phase == "failed"
    assert "hub sent an invalid frame: a row's probabilities do not add up to 1" in job.reason


@pytest.mark.parametrize(
    ("tensors", "message"),
    [(renamed, "not the parent model's"), (unsound, "not finite")],
)
def test_parent_must_send_its_own_model(
    federation: Federation, nodes: dict[str, Node], larger: Path, tensors: Any, message: str
) -> None:
    job = federation.started(**tree_options(larger, evaluation={"every": 0, "initial": False}))
    hub = nodes[HUB]
    work = at_the_fold(federation, nodes, job, 2)
    outcome, content = hub.done_for(work)
    assert content is not None
    short = hub.upload(work["assignment"], mend(content, folder=hub.folder, tensors=without_one))
    assert short.status_code == 422 and "numbers, expected" in short.json()["detail"]
    foreign = mend(content, folder=hub.folder, meta={"fingerprint": "0" * 64})
    assert hub.upload(work["assignment"], foreign).status_code == 422
    bad = mend(content, folder=hub.folder, tensors=tensors)
    assert hub.upload(work["assignment"], bad).status_code == 204
    assert hub.report(work, outcome, bad).status_code == 200
    federation.work_off()
    job.refresh_from_db()
    assert job.phase == "failed" and message in job.reason


REFUSED: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"tree": {"parents": []}}, "tree.parents", "say who is above whom"),
    ({"distill": {"models": ["a", "b"]}}, "distill.models", "one level above the devices so far"),
    ({"distill": {"bridge": "law"}}, "distill.bridge", "take dialogues or"),
    (
        {"tree": {"parents": ["pi-a=hub", "pi-b=pi-a"]}},
        "tree.parents",
        "hub, pi-a are 2 parents; name one",
    ),
    (
        {"tree": {"parents": ["pi-a=hub"]}, "participation": {"devices": list(LEAVES)}},
        "tree.parents",
        "pi-b has no parent; name one",
    ),
    (
        {"tree": {"parents": ["pi-a=pi-b"]}},
        "tree.parents",
        "no device of this job is called",
    ),
)


@pytest.mark.parametrize(("changes", "path", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_invalid_tree_is_refused_with_advice(
    federation: Federation,
    nodes: dict[str, Node],
    larger: Path,
    changes: dict[str, Any],
    path: str,
    message: str,
) -> None:
    with pytest.raises(SpecError) as caught:
        services.create_job(federation.spec(**tree_options(larger, **changes)), None)
    result = [fault for fault in caught.value.faults if fault.path == path]
    assert any(message in fault.message for fault in result), caught.value
    assert not Job.objects.exists()


def test_auto_tree_needs_one_parent_without_data(
    federation: Federation, nodes: dict[str, Node], node: Callable[..., Node], larger: Path
) -> None:
    auto = tree_options(larger, tree={"parents": ["auto"]})
    node("hub-2", "aggregator")
    with pytest.raises(SpecError, match="hub, hub-2 are 2 parents"):
        services.create_job(federation.spec(**auto), None)


def test_parent_lost_before_round_one_fails_job(
    federation: Federation, nodes: dict[str, Node], larger: Path
) -> None:
    from webapp.jobs.lifecycle.enrolment import revoke

    job = services.create_job(federation.spec(**tree_options(larger)), None)
    revoke(nodes[HUB].device, None)
    federation.work_off()
    job.refresh_from_db()
    assert job.phase == "failed" and "pi-a has no parent; name one" in job.reason


def test_other_vocabulary_fails_job_before_start(
    federation: Federation, nodes: dict[str, Node], tmp_path: Path
) -> None:
    other = make_model(tmp_path / "other", vocab_size=70)
    job = federation.launch(**tree_options(other))
    job.refresh_from_db()
    assert job.phase == "failed" and "share one vocabulary" in job.reason

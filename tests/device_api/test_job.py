"""One job from launch to end, by the calls of docs/reference/protocol.md."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.device import SCORES, TRAINED, weights
from tests.federation import LEASE_S, Federation
from webapp.devices.signing import public_key
from webapp.jobs.models import Artefact, Assignment, Event, Job, Participant


def test_job_with_two_devices(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    porch.examples = 120
    porch.hello()
    job = federation.launch(rounds=2)

    assert federation.handled[:3] == ["edgewise.advance", "edgewise.initialise", "edgewise.advance"]
    job.refresh_from_db()
    assert job.phase == "running"
    first = weights(str(job.global_artefact_id))
    assert federation.round(job).number == 0
    assert kitchen.work() == porch.work() == ["evaluate"]
    federation.work_off()
    before = job.rounds.get(number=0)
    assert before.phase == "closed"
    assert before.evaluation["rougeL"] == pytest.approx(SCORES["rougeL"])

    for number in (1, 2):
        assert kitchen.work() == porch.work() == ["train"]
        federation.work_off()
        assert federation.round(job).phase == "evaluating"
        assert kitchen.work() == porch.work() == ["evaluate"]
        federation.work_off()
        assert job.rounds.get(number=number).phase == "closed"

    job.refresh_from_db()
    assert (job.phase, job.reason) == ("completed", "")
    assert job.ended_at is not None
    assert job.started_at is not None
    # 40 examples have delta 1, 120 have 2: each round adds 1.75 to every weight.
    for name, tensor in weights(str(job.global_artefact_id)).items():
        torch.testing.assert_close(tensor, first[name] + 2 * 1.75)
    last = job.rounds.get(number=2)
    assert last.fold["slots"] == [0, 1]
    assert last.fold["weights"] == {"0": 0.25, "1": 0.75}
    assert last.base_artefact_id == job.rounds.get(number=1).global_artefact_id
    assert all(row.ended_at for row in job.rounds.all())
    assert all(row.collected_at and row.aggregated_at for row in job.rounds.filter(number__gt=0))
    parts = Assignment.objects.filter(round__job=job)
    assert set(parts.values_list("phase", flat=True)) == {"folded"}
    assert all(part.ended_at and part.accepted_at and part.sent_at for part in parts)


def test_acceptance_answer_is_complete(federation: Federation) -> None:
    (pi,) = federation.devices("pi-kitchen")
    job = federation.started()
    work = pi.take()
    job.refresh_from_db()
    model = job.global_artefact
    assert model is not None
    assert work["job"] == str(job.pk)
    assert work["job_name"] == "a job"
    assert (work["task"], work["round"], work["attempt"], work["slot"]) == ("train", 1, 1, 0)
    assert work["dataset"] == "law"
    assert work["spec"] == job.spec
    content = b64decode(work["global"].pop("data"))
    assert work["global"] == {"sha256": model.sha256, "size_bytes": model.size_bytes}
    assert hashlib.sha256(content).hexdigest() == model.sha256
    assert work["model_fingerprint"] == job.model_fingerprint
    assert len(work["model_fingerprint"]) == 64
    assert work["max_update_bytes"] > model.size_bytes
    assert work["lease_s"] == LEASE_S
    assert work["deadline_at"].endswith("+00:00")


def test_offer_is_signed_and_minimal(federation: Federation) -> None:
    (pi,) = federation.devices("pi-kitchen")
    federation.started()
    kind, device, envelope = federation.outbox.devices[-1]
    assert (kind, device) == ("offer", pi.device.pk)
    key = Ed25519PublicKey.from_public_bytes(b64decode(public_key()))
    key.verify(b64decode(envelope["signature"]), envelope["body"].encode())
    body = json.loads(envelope["body"])
    assert set(body) == {"kind", "device", "assignment", "nonce", "expires_at", "key"}
    assert body["assignment"] == pi.offers()[-1]


def test_model_bytes_are_unchanged(federation: Federation) -> None:
    (pi,) = federation.devices("pi-kitchen")
    federation.started()
    work = pi.take()
    answer = pi.download(work["global"]["sha256"])
    content = b"".join(answer.streaming_content)
    assert hashlib.sha256(content).hexdigest() == work["global"]["sha256"]
    assert Assignment.objects.get(pk=work["assignment"]).bytes_down == len(content)


def test_log_lists_the_events(federation: Federation) -> None:
    federation.devices("pi-kitchen", "pi-porch")
    job = federation.run(federation.launch())
    log = federation.log(job)
    for line in (
        "launched by the system",
        "initial model ready",
        "round 0 started: measuring the baseline",
        "pi-kitchen, round 0: evaluated, ROUGE-L 25.0",
        "baseline measured: ROUGE-L 25.0, loss 2.000",
        "round 1 started: 2 devices",
        "pi-porch, round 1: trained on 40 examples, loss 1.500",
        "round 1: folded 2 updates",
        "round 1 closed",
        "completed after",
    ):
        assert line in log, line
    seqs = list(Event.objects.filter(job=job).order_by("seq").values_list("seq", flat=True))
    assert seqs == list(range(1, len(seqs) + 1))


def test_slots_follow_names_and_stay(federation: Federation) -> None:
    federation.devices("pi-b", "pi-a", "pi-c")
    job = federation.run(federation.launch())
    rows = Participant.objects.filter(job=job).order_by("slot")
    assert [row.device.name for row in rows] == ["pi-a", "pi-b", "pi-c"]


def test_metrics_are_stored(federation: Federation) -> None:
    (pi,) = federation.devices("pi-kitchen")
    job = federation.started()
    work = pi.take()
    content = pi.update_for(work)
    pi.upload(work["assignment"], content)
    pi.report(work["assignment"], content, bytes_up=700, bytes_down=800)
    row = Assignment.objects.get(pk=work["assignment"])
    assert (row.examples, row.metrics) == (40, TRAINED)
    assert (row.bytes_up, row.bytes_down) == (700, 800)
    assert row.update_artefact is not None
    assert row.update_artefact.origin == "device:pi-kitchen"
    federation.work_off()
    assert federation.round(job).phase == "evaluating"


def test_equal_jobs_give_equal_bytes(federation: Federation) -> None:
    """The same updates in the other order, on another day, are the same model."""
    federation.devices("pi-kitchen", "pi-porch")
    first = federation.run(federation.launch(rounds=2))
    federation.pis.reverse()
    second = federation.run(federation.launch(rounds=2))
    assert first.global_artefact_id == second.global_artefact_id
    assert Artefact.objects.filter(kind="global").count() == 3
    assert Job.objects.count() == 2

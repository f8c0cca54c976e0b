"""Codecs between device and server: choice, acceptance, refusal."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.device import Pi, digest_of, weights
from tests.federation import Federation, phase_of
from webapp.jobs.models import Artefact, Assignment, Job, Round
from workers.agent.assignment import error_feedback
from workers.agent.assignment.assigned_work import AssignedWork

Values = dict[str, Any]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a device keeps what its codecs lost."""
    return tmp_path / "feedback"


def encoded(values: Values, disk: Path, number: float = 0.1) -> bytes:
    """The update that the device's own code writes; uneven, so that codecs lose something."""
    valuess = {
        name: torch.linspace(-number, number, tensor.numel()).view(tensor.shape)
        for name, tensor in weights(values["global"]["sha256"]).items()
    }
    path = disk.with_name("update.safetensors")
    error_feedback.write(AssignedWork.read(values), valuess, path, disk)
    return path.read_bytes()


def deliver(pi: Pi, values: Values, content: bytes) -> None:
    assignment = values["assignment"]
    answer = pi.upload(assignment, content)
    assert answer.status_code == 204, answer.content
    assert pi.report(assignment, content).status_code == 200
    pi.done.add(assignment)


def evaluate(federation: Federation, pi: Pi) -> None:
    """Let the server fold, answer what is offered, and let it plan the next round."""
    federation.work_off()
    pi.work()
    federation.work_off()


def test_specification_names_the_codec(federation: Federation, disk: Path) -> None:
    (pi,) = federation.devices("pi")
    job = federation.started(wire={"uplink": "int4", "top_k": 0.2, "compress": True})
    values = pi.take()
    chain = "top_k(0.2)+int4+zstd"
    assert values["wire"] == {"chain": chain, "feedback": None, "jobs": [str(job.pk)]}
    assert pi.take() == values, "a lost answer is repeated"
    assert Assignment.objects.get(pk=values["assignment"]).wire == chain
    content = encoded(values, disk)
    assert len(content) < values["max_update_bytes"] < values["global"]["size_bytes"] + 80_000
    too_much = pi.upload(values["assignment"], bytes(values["max_update_bytes"] + 1))
    assert too_much.status_code == 413
    deliver(pi, values, content)
    evaluate(federation, pi)
    job.refresh_from_db()
    assert job.phase == "completed", job.reason


def test_evaluation_has_no_codec(federation: Federation) -> None:
    (pi,) = federation.devices("pi")
    federation.launch(wire={"uplink": "int8"})
    values = pi.take()
    assert values["task"] == "evaluate"
    assert values["wire"] == {"chain": "fp32", "feedback": None, "jobs": None}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"chain": "fp32"}, "was written as fp32, not as int8"),
    ({"chain": "int4"}, "was written as int4, not as int8"),
]


@pytest.mark.parametrize(("offer", "reason"), WRONG)
def test_wrong_codec_is_refused(
    federation: Federation, disk: Path, offer: dict[str, Any], reason: str
) -> None:
    (pi,) = federation.devices("pi")
    federation.started(wire={"uplink": "int8"})
    values = pi.take()
    answer = pi.upload(values["assignment"], encoded(values | {"wire": offer}, disk))
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]
    deliver(pi, values, encoded(values, disk))
    assert phase_of(values["assignment"]) == "reported"


def test_invalid_update_header_is_refused(federation: Federation, disk: Path) -> None:
    (pi,) = federation.devices("pi")
    federation.started(wire={"uplink": "int8"})
    values = pi.take()
    content = encoded(values, disk)
    longer = content.replace(b'"0":{"dtype":"U8"', b'"z":{"dtype":"U8"', 1)
    assert longer != content
    answer = pi.upload(values["assignment"], longer)
    assert answer.status_code == 422
    assert "unexpected 'z'" in answer.json()["detail"]


def spoil(content: bytes) -> bytes:
    """Steps that are NaN, which stand first in a row: the header is sound, the numbers are not."""
    start = 8 + struct.unpack("<Q", content[:8])[0]
    return content[:start] + b"\xff" * 8 + content[start + 8 :]


def test_error_feedback_follows_accepted_update(federation: Federation, disk: Path) -> None:
    """Round 2's update is refused by the fold: round 3 names round 1's as accepted again."""
    pi, steady = federation.devices("pi", "steady")
    job = federation.started(wire={"uplink": "int8"}, rounds=4)
    result, sent = [], []
    for number in (1, 2, 3, 4):
        other = steady.take()
        deliver(steady, other, encoded(other, disk.with_name("steady")))
        values = pi.take()
        assert values["round"] == number
        result.append(values["wire"]["feedback"])
        content = encoded(values, disk)
        sent.append(digest_of(content))
        deliver(pi, values, spoil(content) if number == 2 else content)
        for who in (pi, steady):
            evaluate(federation, who)
    job.refresh_from_db()
    assert job.phase == "completed", federation.log(job)
    assert "update refused" in federation.log(job)
    first = {"round": 1, "update": sent[0], "chain": "int8"}
    assert result == [None, first, first, {**first, "round": 3, "update": sent[2]}]


def test_disabled_feedback_stores_nothing(federation: Federation, disk: Path) -> None:
    (pi,) = federation.devices("pi")
    federation.started(wire={"uplink": "int4", "error_feedback": False}, rounds=2)
    for _ in (1, 2):
        values = pi.take()
        assert values["wire"] == {"chain": "int4", "feedback": None, "jobs": None}
        deliver(pi, values, encoded(values, disk))
        evaluate(federation, pi)
    assert not disk.exists()


def test_residuals_of_finished_jobs_are_removed(federation: Federation, disk: Path) -> None:
    (pi,) = federation.devices("pi")
    first = federation.started(wire={"uplink": "int8"})
    values = pi.take()
    deliver(pi, values, encoded(values, disk))
    assert [path.name for path in disk.iterdir()] == [str(first.pk)]
    evaluate(federation, pi)
    first.refresh_from_db()
    assert first.is_over
    second = federation.started(wire={"uplink": "int8"})
    work = AssignedWork.read(pi.take())
    assert work.wire.jobs == {str(second.pk)}
    error_feedback.remove_finished_jobs(disk, work.wire)
    assert list(disk.iterdir()) == []


def measured(job: Job, upload_s: float) -> None:
    """As if the link were such that the numbers of an fp32 update take so long."""
    row = Assignment.objects.filter(round__job=job, task="train").latest("ended_at")
    numbers = sum(4 * tensor.numel() for tensor in weights(row.round.base_artefact_id).values())
    row.metrics |= {
        "upload_s": upload_s * row.update_artefact.size_bytes / numbers,
        "seconds": 1.0,
    }
    row.save(update_fields=["metrics"])


@pytest.mark.parametrize(("upload_s", "chain"), [(1.5, "fp32"), (3.0, "bf16"), (500.0, "int4")])
def test_auto_codec_follows_past_transfers(
    federation: Federation, upload_s: float, chain: str
) -> None:
    """Of any job. Another attempt at the same round has the codec of the first."""
    (pi,) = federation.devices("pi")
    first = federation.started()
    values = pi.take()
    assert values["wire"]["chain"] == "fp32", "nothing is known of the link yet"
    pi.finish(values)
    evaluate(federation, pi)
    measured(first, upload_s)
    federation.started()
    values = pi.take()
    assert values["wire"]["chain"] == chain
    measured(first, 0.0001)
    pi.hello("boot-2")
    federation.reconcile()
    again = pi.take()
    assert again["attempt"] == 2 and again["wire"]["chain"] == chain


def test_deterministic_job_ignores_link_speed(federation: Federation) -> None:
    """What was measured of a link would decide its bits."""
    (pi,) = federation.devices("pi")
    first = federation.started()
    pi.finish(pi.take())
    evaluate(federation, pi)
    measured(first, 500.0)
    federation.started(deterministic=True)
    assert pi.take()["wire"]["chain"] == "fp32"


def test_models_are_sent_as_steps(federation: Federation, disk: Path) -> None:
    """Who holds the model before rebuilds the next from the step, bit for bit."""
    from fedcore.wire.downlink import rebuild

    (pi,) = federation.devices("pi")
    job = federation.started(wire={"uplink": "int8", "downlink": "int4"}, rounds=3)
    stranger = federation.device("stranger")
    model = pi.take()["global"]
    assert "step" not in model, "the first model travels whole"
    for number in (1, 2, 3):
        values = pi.take()
        deliver(pi, values, encoded(values, disk, 0.1 * number))
        federation.work_off()
        row = Round.objects.get(job=job, number=number)
        result = pi.take()["global"]
        step = result["step"]
        assert step["base"] == model["sha256"] == row.base_artefact_id
        assert step["size_bytes"] < result["size_bytes"]
        answer = pi.download(step["sha256"])
        content = b"".join(answer.streaming_content) if answer.streaming else answer.content
        assert digest_of(content) == step["sha256"]
        assert stranger.download(step["sha256"]).status_code == 404
        disk.with_name("step").write_bytes(content)
        disk.with_name("base").write_bytes(artefact(model["sha256"]))
        rebuilt = rebuild(disk.with_name("base"), disk.with_name("step"), disk.with_name("next"))
        assert rebuilt.sha256 == result["sha256"]
        model = result
        evaluate(federation, pi)
    job.refresh_from_db()
    assert job.phase == "completed"


def artefact(sha256: str) -> bytes:
    from webapp.jobs.artefacts.store import open_artefact

    with open_artefact(Artefact.objects.get(pk=sha256)) as source:
        return source.read()


def test_complete_models_are_sent_by_default(federation: Federation) -> None:
    federation.devices("pi")
    job = federation.run(federation.started())
    row = Round.objects.get(job=job, number=1)
    assert row.step_artefact is None and not Artefact.objects.filter(kind="step").exists()
    assert math.isclose(row.global_artefact.size_bytes, row.base_artefact.size_bytes)

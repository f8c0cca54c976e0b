"""Residuals of lossy codecs on a device: kept as long as they are needed."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch

from fedcore.formats.codec_chain import PLAIN, parse
from fedcore.formats.wire_offer import AcceptedUpdate, WireOffer
from fedcore.spec.parse import parse_spec
from fedcore.wire.frame import FrameReader
from workers.agent.assignment import error_feedback
from workers.agent.assignment.assigned_work import AssignedWork

JOB, OTHER = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
DELTA = {"w": torch.linspace(-1, 1, 500)}
INT4 = parse("int4")


def work(round_number: int, offer: WireOffer, task: str = "train", **spec: Any) -> AssignedWork:
    return AssignedWork(
        assignment="a", job=JOB, job_name="", round=round_number, task=task, slot=0, dataset="law",
        spec=parse_spec({"rounds": 3, **spec}), global_sha256="0" * 64, global_size=1,
        deadline=None, max_update_bytes=10**6, wire=offer,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "feedback"


def write(item: AssignedWork, folder: Path) -> AcceptedUpdate:
    info = error_feedback.write(item, DELTA, folder.with_name("update"), folder)
    return AcceptedUpdate(item.round, info.sha256, item.wire.chain)


def residual_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.safetensors"))


def test_two_residuals_stay_over_rounds(folder: Path) -> None:
    """The one that was used, for a repeated attempt; the new one, for the next round."""
    accepted: list[AcceptedUpdate | None] = [None]
    for number in (1, 2, 3):
        accepted.append(write(work(number, WireOffer(INT4, accepted[-1])), folder))
    assert residual_files(folder) == sorted(item.file for item in accepted[2:] if item)
    assert not list(folder.rglob("*.new"))


def test_lossless_update_clears_the_residual(folder: Path) -> None:
    first = write(work(1, WireOffer(INT4)), folder)
    owed = FrameReader(folder / JOB / first.file)["w"]
    write(work(2, WireOffer(PLAIN, first)), folder)
    sent = FrameReader(folder.with_name("update"))["w"]
    assert torch.equal(sent, DELTA["w"] + owed) and bool(owed.any())
    assert residual_files(folder) == [first.file], "for another attempt at round 2"


def test_no_residual_without_feedback_or_loss(folder: Path) -> None:
    write(work(1, WireOffer(INT4), wire={"error_feedback": False}), folder)
    write(work(1, WireOffer(PLAIN)), folder)
    assert not folder.exists()


def test_missing_residual_is_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = write(work(1, WireOffer(INT4)), folder)
    (folder / JOB / first.file).write_bytes(b"a power cut")
    with caplog.at_level(logging.WARNING):
        write(work(2, WireOffer(INT4, first)), folder)
    assert "the residual of round 1's update is missing on this disk" in caplog.text


def test_jobs_that_are_over_leave_nothing(folder: Path) -> None:
    for job in (JOB, OTHER):
        (folder / job).mkdir(parents=True)
    error_feedback.remove_finished_jobs(folder, WireOffer())
    assert {path.name for path in folder.iterdir()} == {JOB, OTHER}, "the server named no jobs"
    error_feedback.remove_finished_jobs(folder, WireOffer(jobs=frozenset({JOB})))
    assert {path.name for path in folder.iterdir()} == {JOB}
    error_feedback.remove_finished_jobs(folder.with_name("none"), WireOffer(jobs=frozenset()))


@pytest.mark.parametrize(
    ("round_number", "task", "gone"),
    [(2, "evaluate", False), (3, "train", False), (3, "evaluate", True)],
)
def test_the_last_evaluation_ends_a_job(
    folder: Path, round_number: int, task: str, gone: bool
) -> None:
    (folder / JOB).mkdir(parents=True)
    error_feedback.remove_after_last_round(folder, work(round_number, WireOffer(), task))
    assert (folder / JOB).exists() != gone


NONSENSE: list[dict[str, Any]] = [
    {"feedback": {"round": 1, "update": "../../x", "chain": "int8"}},
    {"feedback": {"round": "x", "update": "0" * 64, "chain": "int8"}},
    {"jobs": ["../.."]},
]


@pytest.mark.parametrize("values", NONSENSE)
def test_file_names_from_the_server_are_validated(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"SHA-256|invalid literal|UUID"):
        WireOffer.read(values)


def test_offer_round_trip() -> None:
    offer = WireOffer(INT4, AcceptedUpdate(3, "a" * 64, parse("top_k(0.1)+int8")), frozenset({JOB}))
    assert WireOffer.read(offer.to_dict()) == offer
    assert WireOffer.read({}) == WireOffer(PLAIN, None, None)

"""Invalid updates: each is refused with a reason, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.device import Pi
from tests.disk import SmallDisk, small_disk
from tests.federation import Federation, phase_of
from webapp.jobs.artefacts.store import incoming_dir
from webapp.jobs.models import Artefact, Assignment

__all__ = ["small_disk"]

Work = dict[str, Any]


def _without_one(tensors: dict[str, Any]) -> None:
    del tensors[sorted(tensors)[0]]


def _with_one_more(tensors: dict[str, Any]) -> None:
    tensors["strange.weight"] = tensors[sorted(tensors)[0]].clone()


def _mis_shaped(tensors: dict[str, Any]) -> None:
    name = sorted(tensors)[0]
    tensors[name] = tensors[name].t().contiguous()


def _wider(tensors: dict[str, Any]) -> None:
    name = sorted(tensors)[0]
    tensors[name] = tensors[name].double()


def _narrower(tensors: dict[str, Any]) -> None:
    for name in tensors:
        tensors[name] = tensors[name].bfloat16()


def _tail_removed(frame: bytes) -> bytes:
    return frame[:-4]


def _cut_in_header(frame: bytes) -> bytes:
    return frame[:100]


def _with_a_tail(frame: bytes) -> bytes:
    return frame + b"\0" * 8


def _header(frame: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    (length,) = struct.unpack("<Q", frame[:8])
    header = json.loads(frame[8 : 8 + length])
    change(header)
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + frame[8 + length :]


def _lying_about_a_shape(frame: bytes) -> bytes:
    def lie(header: dict[str, Any]) -> None:
        header[sorted(name for name in header if name != "__metadata__")[0]]["shape"] = [10**12]

    return _header(frame, lie)


def _without_metadata(frame: bytes) -> bytes:
    return _header(frame, lambda header: header.pop("__metadata__"))


MALFORMED: dict[str, tuple[Any, str]] = {
    "nothing": (lambda frame: b"", "truncated"),
    "seven bytes": (lambda frame: frame[:7], "truncated"),
    "cut in its header": (_cut_in_header, "truncated inside its header"),
    "cut in its numbers": (_tail_removed, "truncated: 4 bytes are missing"),
    "more than it says": (_with_a_tail, "8 bytes that belong to no tensor"),
    "a pickle": (lambda frame: b"\x80\x05\x95" + b"x" * 2000, "no safetensors file"),
    "a header of 2^63 bytes": (lambda frame: b"\xff" * 8 + frame, "header length is nonsense"),
    "a shape that does not fit": (_lying_about_a_shape, "do not fit its shape"),
    "no metadata": (_without_metadata, "foreign update: kind is None"),
}


def test_malformed_frame(pi: Pi, subtests: Any) -> None:
    work = pi.take()
    for case, (spoil, text) in MALFORMED.items():
        with subtests.test(case):
            answer = pi.upload(work["assignment"], spoil(pi.update_for(work)))
            assert answer.status_code == 422, answer.content
            assert text in answer.json()["detail"]
    assert_nothing_happened(pi, work)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a tensor is missing": ({"mend": _without_one}, "wrong names: 1 missing, 0 unexpected"),
    "one tensor too many": ({"mend": _with_one_more}, "unexpected 'strange.weight'"),
    "mis-shaped": ({"mend": _mis_shaped}, "is mis-shaped"),
    "fp64": ({"mend": _wider}, "is fp64, not fp32"),
    "bf16": ({"mend": _narrower}, "is bf16, not fp32"),
    "a codec nobody knows": ({"meta": {"wire": "int3"}}, "unknown codec 'int3'; known: fp32, bf16"),
    "another codec": ({"meta": {"wire": "int8"}}, "was written as int8, not as fp32"),
    "another kind": ({"meta": {"kind": "global"}}, "kind is 'global', not 'update'"),
    "another job": ({"meta": {"job": "0" * 8}}, "foreign update: job is '00000000'"),
    "another round": ({"meta": {"round": "7"}}, "foreign update: round is '7', not '1'"),
    "another base": ({"meta": {"base": "f" * 64}}, "foreign update: base is 'fff"),
}


def test_frame_for_something_else(pi: Pi, subtests: Any) -> None:
    work = pi.take()
    for case, (changes, text) in WRONG.items():
        with subtests.test(case):
            answer = pi.upload(work["assignment"], pi.update_for(work, **changes))
            assert answer.status_code == 422, answer.content
            assert text in answer.json()["detail"]
    assert_nothing_happened(pi, work)


def assert_nothing_happened(pi: Pi, work: Work) -> None:
    """No trace of the refused bytes; the same assignment takes the right ones."""
    assert not Artefact.objects.filter(kind="update").exists()
    assert list(incoming_dir().iterdir()) == []
    assert phase_of(work["assignment"]) in ("accepted", "uploading")
    pi.answer(work)
    assert phase_of(work["assignment"]) == "reported"


def test_hash_mismatch_is_422(pi: Pi) -> None:
    work = pi.take()
    content = pi.update_for(work)
    other = hashlib.sha256(b"other").hexdigest()
    answer = pi.upload(work["assignment"], content, other)
    assert answer.status_code == 422
    assert "send them again" in answer.json()["detail"]
    assert hashlib.sha256(content).hexdigest() in answer.json()["detail"]
    assert_nothing_happened(pi, work)


def test_invalid_hash_is_refused(pi: Pi) -> None:
    work = pi.take()
    for sha256 in ("short", "G" * 64, "A" * 64):
        assert pi.upload(work["assignment"], pi.update_for(work), sha256).status_code == 404


def test_oversized_update_is_413(pi: Pi) -> None:
    work = pi.take()
    answer = pi.upload(work["assignment"], bytes(work["max_update_bytes"] + 1))
    assert answer.status_code == 413
    assert str(work["max_update_bytes"]) in answer.json()["detail"]
    assert_nothing_happened(pi, work)


def test_metadata_allowance(pi: Pi) -> None:
    work = pi.take()
    content = pi.update_for(work, meta={"note": "x" * 60_000})
    assert len(content) > work["global"]["size_bytes"] + 50_000
    assert pi.upload(work["assignment"], content).status_code == 204


def test_same_upload_twice_is_stored_once(pi: Pi) -> None:
    work = pi.take()
    content = pi.update_for(work)
    answers = [pi.upload(work["assignment"], content) for _ in range(2)]
    assert [(item.status_code, item["Upload-Offset"]) for item in answers] == [
        (204, str(len(content)))
    ] * 2
    assert Artefact.objects.get(kind="update").sha256 == hashlib.sha256(content).hexdigest()


def test_upload_after_the_report_changes_nothing(pi: Pi) -> None:
    work = pi.take()
    content = pi.update_for(work)
    pi.upload(work["assignment"], content)
    pi.report(work["assignment"], content)
    answer = pi.upload(work["assignment"], pi.update_for(work, number=99.0))
    assert answer.status_code == 409
    row = Assignment.objects.get(pk=work["assignment"])
    assert row.update_artefact_id == hashlib.sha256(content).hexdigest()


def test_upload_during_report_is_refused(pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report wins: what was reported is what is folded."""
    from webapp.api.device import updates as calls

    work = pi.take()
    content = pi.update_for(work)
    pi.upload(work["assignment"], content)
    store = calls.store

    def slow_store(*args: Any) -> Artefact:
        monkeypatch.setattr(calls, "store", store)
        assert pi.report(work["assignment"], content).status_code == 200
        return store(*args)

    monkeypatch.setattr(calls, "store", slow_store)
    answer = pi.upload(work["assignment"], pi.update_for(work, number=99.0))
    assert answer.status_code == 409
    row = Assignment.objects.get(pk=work["assignment"])
    assert row.update_artefact_id == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("where", ["storage", "receiving"])
def test_full_disk_is_507_and_keeps_update(
    federation: Federation, small_disk: SmallDisk, settings: Any, where: str
) -> None:
    """507 asks the device to come again; it keeps its update and succeeds once there is space."""
    kitchen, _porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.started()
    work = kitchen.take()
    content = kitchen.update_for(work)
    if where == "storage":  # the artefacts lie on another disk than what arrives
        settings.VAR_DIR = federation.folder
    small_disk.fill()
    answer = kitchen.upload(work["assignment"], content)
    assert answer.status_code == 507, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert "the server's disk is full" in answer.json()["detail"]
    assert phase_of(work["assignment"]) == "uploading"
    assert small_disk.leftovers() == []
    small_disk.free()
    kitchen.answer(work)
    federation.run(job)
    assert job.phase == "completed"
    assert job.rounds.get(number=1).fold["slots"] == [0, 1]


def test_storage_without_space(federation: Federation, settings: Any) -> None:
    """As above where no disk may be mounted."""
    (kitchen,) = federation.devices("pi-kitchen")
    job = federation.started()
    work = kitchen.take()
    storages = settings.STORAGES
    full = {**storages["artefacts"], "BACKEND": "tests.disk.FullStorage"}
    settings.STORAGES = {**storages, "artefacts": full}
    answer = kitchen.upload(work["assignment"], kitchen.update_for(work))
    assert answer.status_code == 507
    assert list(incoming_dir().iterdir()) == []
    settings.STORAGES = storages
    kitchen.answer(work)
    assert federation.run(job).phase == "completed"


def _with_nan(tensors: dict[str, Any]) -> None:
    tensors[sorted(tensors)[-1]].view(-1)[-1] = float("nan")


def _with_infinity(tensors: dict[str, Any]) -> None:
    tensors[sorted(tensors)[0]].view(-1)[0] = float("-inf")


@pytest.mark.parametrize("mend", [_with_nan, _with_infinity])
def test_nonfinite_update_is_excluded(federation: Federation, mend: Any) -> None:
    kitchen, _porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.started()
    work = kitchen.take()
    kitchen.done.add(work["assignment"])
    content = kitchen.update_for(work, mend=mend)
    assert kitchen.upload(work["assignment"], content).status_code == 204
    assert kitchen.report(work["assignment"], content).status_code == 200
    federation.run(job)
    assert job.phase == "completed"
    row = Assignment.objects.get(pk=work["assignment"])
    assert row.phase == "refused"
    assert "holds NaN or infinity" in row.reason
    assert "pi-kitchen, round 1: update refused: tensor" in federation.log(job)
    assert job.rounds.get(number=1).fold["slots"] == [1]


def test_round_of_nan_updates_fails(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.started()
    before = federation.round(job).base_artefact_id
    for pi in (kitchen, porch):
        work = pi.take()
        content = pi.update_for(work, mend=_with_nan)
        pi.upload(work["assignment"], content)
        pi.report(work["assignment"], content)
    federation.work_off()
    job.refresh_from_db()
    assert job.phase == "failed"
    assert "0 of 2 updates are valid, 1 are needed" in job.reason
    assert "holds NaN or infinity" in job.reason
    assert job.global_artefact_id == before, "the job still has the model before it"


def test_too_few_valid_updates_are_not_folded(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.started(participation={"quorum": 1.0})
    work = kitchen.take()
    content = kitchen.update_for(work, mend=_with_nan)
    kitchen.upload(work["assignment"], content)
    kitchen.report(work["assignment"], content)
    porch.work()
    federation.work_off()
    job.refresh_from_db()
    assert job.phase == "failed"
    assert "1 of 2 updates are valid, 2 are needed" in job.reason

"""Downloads: ranges, the adapter's zip, the merged model."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient
from rest_framework.test import APIClient

from fedcore.model.initial import write_initial
from fedcore.model.tuned import load_tuned
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec
from tests.api.conftest import frame, put_artefact
from webapp.accounts.models import create_token
from webapp.jobs.artefacts import download
from webapp.jobs.artefacts.store import storage
from webapp.jobs.artefacts.zip_stream import ZipMember, zip_parts
from webapp.jobs.models import Artefact, ArtefactKind, Job, Round

CONTENT = frame(weight=[float(number) for number in range(64)])


def body(answer: Any) -> bytes:
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


def get_bytes(client: APIClient, artefact: Artefact, **headers: str) -> Any:
    return client.get(f"/api/v1/artefacts/{artefact.sha256}/bytes/", headers=headers)


@pytest.fixture
def artefact(db: None) -> Artefact:
    return put_artefact(CONTENT)


def test_artefact_is_downloaded(viewer_api: Any, artefact: Artefact) -> None:
    answer = get_bytes(viewer_api, artefact, Accept="application/octet-stream")
    assert answer.status_code == 200 and body(answer) == CONTENT
    assert answer["ETag"] == f'"{artefact.sha256}"'
    assert int(answer["Content-Length"]) == len(CONTENT)
    assert artefact.sha256[:12] in answer["Content-Disposition"]
    again = get_bytes(viewer_api, artefact, **{"If-None-Match": answer["ETag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    ("range_header", "part"),
    [("bytes=0-9", slice(0, 10)), ("bytes=20-", slice(20, None)), ("bytes=-5", slice(-5, None))],
)
def test_range_of_it(viewer_api: Any, artefact: Artefact, range_header: str, part: slice) -> None:
    answer = get_bytes(viewer_api, artefact, Range=range_header)
    assert answer.status_code == 206 and body(answer) == CONTENT[part]
    assert answer["Content-Range"].endswith(f"/{len(CONTENT)}")


def test_range_beyond_the_end_is_416(viewer_api: Any, artefact: Artefact) -> None:
    answer = get_bytes(viewer_api, artefact, Range="bytes=99999-")
    assert answer.status_code == 416
    assert answer["Content-Range"] == f"bytes */{len(CONTENT)}"
    assert answer["Content-Type"] == "application/problem+json"


def open_zip(answer: Any) -> zipfile.ZipFile:
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "application/zip"
    return zipfile.ZipFile(io.BytesIO(body(answer)))


def test_adapter_is_a_peft_folder(viewer_api: Any, fleet: Any) -> None:
    job: Job = fleet["job"]
    answer = viewer_api.get(f"/api/v1/jobs/{job.pk}/download/adapter/")
    assert 'filename="a-job-adapter.zip"' in answer["Content-Disposition"]
    folder = open_zip(answer)
    assert folder.testzip() is None
    assert sorted(folder.namelist()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads(folder.read("adapter_config.json"))
    assert config["peft_type"] == "LORA" and config["r"] == JobSpec().adapter.rank
    with storage().open(Artefact.path_of(job.global_artefact.sha256)) as stored:
        assert folder.read("adapter_model.safetensors") == stored.read()
    assert job.global_artefact.sha256 in folder.read("README.md").decode()


def test_adapter_of_an_earlier_round(viewer_api: Any, fleet: Any) -> None:
    job: Job = fleet["job"]
    old, new = put_artefact(frame(weight=[1.0])), put_artefact(frame(weight=[2.0]))
    Round.objects.create(job=job, number=2, attempt=1, phase="failed", global_artefact=old)
    Round.objects.create(job=job, number=2, attempt=2, phase="closed", global_artefact=new)
    path = f"/api/v1/jobs/{job.pk}/download/adapter/"
    answer = viewer_api.get(f"{path}?round=2")
    assert "a-job-adapter-round-2.zip" in answer["Content-Disposition"]
    assert open_zip(answer).read("adapter_model.safetensors") == frame(weight=[2.0])
    assert viewer_api.get(f"{path}?round=7").status_code == 409
    assert viewer_api.get(f"{path}?round=x").status_code == 400
    assert viewer_api.get(f"{path}?round={'9' * 5000}").status_code == 400


def test_missing_model_is_409(viewer_api: Any, db: None) -> None:
    job = Job.objects.create(name="new", spec=JobSpec().to_dict())
    for kind in ("adapter", "merged"):
        answer = viewer_api.get(f"/api/v1/jobs/{job.pk}/download/{kind}/")
        assert answer.status_code == 409 and "no model yet" in answer.json()["detail"]


def test_lost_model_is_409(viewer_api: Any, fleet: Any) -> None:
    storage().delete(Artefact.path_of(fleet["artefact"].sha256))
    answer = viewer_api.get(f"/api/v1/jobs/{fleet['job'].pk}/download/adapter/")
    assert answer.status_code == 409 and "restore" in answer.json()["detail"]


def test_merged_model_is_requested_once(
    viewer_api: Any, fleet: Any, outbox: Any, django_capture_on_commit_callbacks: Any
) -> None:
    job: Job = fleet["job"]
    path = f"/api/v1/jobs/{job.pk}/download/merged/"
    with django_capture_on_commit_callbacks(execute=True):
        answer = viewer_api.get(path)
    assert answer.status_code == 202 and int(answer["Retry-After"]) > 0
    assert ("edgewise.export", (str(job.pk),)) in outbox.site
    merged = put_artefact(b"PK the whole model", ArtefactKind.MERGED)
    Job.objects.filter(pk=job.pk).update(merged_artefact=merged)
    answer = viewer_api.get(path, headers={"Range": "bytes=0-1"})
    assert answer.status_code == 206 and body(answer) == b"PK"


def test_fully_tuned_model_has_no_adapter(viewer_api: Any, fleet: Any) -> None:
    spec = parse_spec({"adapter": {"kind": "full"}}).to_dict()
    Job.objects.filter(pk=fleet["job"].pk).update(spec=spec)
    path = f"/api/v1/jobs/{fleet['job'].pk}/download/adapter/"
    assert viewer_api.get(path).status_code == 202
    assert viewer_api.get(f"{path}?round=1").status_code == 409


@pytest.mark.parametrize("rule", ["stack", "fedex"])
def test_merging_job_gives_no_adapter(viewer_api: Any, fleet: Any, rule: str) -> None:
    spec = parse_spec({"adapter": {"aggregation": rule}}).to_dict()
    Job.objects.filter(pk=fleet["job"].pk).update(spec=spec)
    path = f"/api/v1/jobs/{fleet['job'].pk}/download/adapter/"
    assert viewer_api.get(path).status_code == 202, "the whole model is being merged"
    answer = viewer_api.get(f"{path}?round=1")
    assert answer.status_code == 409 and "is not the model" in answer.content.decode()
    urls = download.available_downloads(Job.objects.get(pk=fleet["job"].pk))
    assert urls["adapter_url"] is None and urls["merged_url"]
    assert "take the whole model" in urls["note"]


def test_bottleneck_zip_names_its_loader(viewer_api: Any, fleet: Any, tmp_path: Path) -> None:
    spec = parse_spec({"adapter": {"kind": "bottleneck", "width": 4}})
    first = write_initial(spec, tmp_path / "g")
    artefact = put_artefact((tmp_path / "g").read_bytes())
    assert artefact.sha256 == first.sha256
    job = fleet["job"]
    Job.objects.filter(pk=job.pk).update(spec=spec.to_dict(), global_artefact=artefact)
    path = f"/api/v1/jobs/{job.pk}/download/"
    with zipfile.ZipFile(io.BytesIO(body(viewer_api.get(f"{path}adapter/")))) as archive:
        archive.extractall(tmp_path / "home")
    assert "load_tuned" in (tmp_path / "home" / "README.md").read_text()
    model, _ = load_tuned(tmp_path / "home")
    assert sum("bottleneck" in name for name, _ in model.named_parameters()) > 0
    refused = viewer_api.get(f"{path}merged/")
    assert refused.status_code == 409 and "GELU" in refused.json()["detail"]


def test_zip_is_streamed() -> None:
    chunk = bytes(2**20)
    weights = ZipMember("weights", 64 * 2**20, lambda: (chunk for _ in range(64)))
    tracemalloc.start()
    total = sum(len(part) for part in zip_parts([weights]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 64 * 2**20 and peak < 8 * 2**20


def test_large_zip_uses_zip64() -> None:
    parts = zip_parts([ZipMember("weights", 5 * 2**30, lambda: [b"x"])])
    content = io.BytesIO(b"".join(parts))
    assert zipfile.ZipFile(content).read("weights") == b"x"
    assert content.getvalue()[4:6] == b"\x2d\x00"  # needs version 4.5: zip64


@pytest.mark.django_db(transaction=True)
def test_adapter_over_asgi(people: Any, fleet: Any) -> None:
    _, secret = create_token(people["viewer"], "x")

    async def fetch() -> bytes:
        path = f"/api/v1/jobs/{fleet['job'].pk}/download/adapter/"
        answer = await AsyncClient().get(path, headers={"Authorization": f"Token {secret}"})
        return b"".join([part async for part in answer.streaming_content])

    content = async_to_sync(fetch)()
    assert "adapter_config.json" in zipfile.ZipFile(io.BytesIO(content)).namelist()

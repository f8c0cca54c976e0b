"""Data of the live pages: snapshots, samples after cursors, thinned histories."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.web import factories
from webapp.common import units
from webapp.common.metric_definitions import report_faults
from webapp.devices.models import Device
from webapp.jobs.analysis.snapshot import ClosedRounds, snapshot
from webapp.jobs.lifecycle.round_rows import device_names, last_seen, to_round
from webapp.jobs.models import Job, Round
from webapp.pages.live.readers import FleetReader, JobReader
from webapp.telemetry import series
from webapp.telemetry.models import Sample
from workers.coordinator.apply import evaluation_means

pytestmark = pytest.mark.postgresql


def test_snapshot_is_plain_json(job: Job) -> None:
    factories.run_site()
    payload = json.loads(json.dumps(snapshot(job), allow_nan=False))
    assert payload["round"] == {
        "number": 2,
        "of": 10,
        "phase": "collecting",
        "attempt": 1,
        "deadline_at": payload["round"]["deadline_at"],
    }
    assert payload["headline"].startswith("1 of 3 devices still training: nuc-office, last seen")
    assert payload["moves"] == ["pause", "cancel"]
    assert 0.1 < payload["progress"] < 0.2
    assert payload["tiles"]["rougeL"] > payload["tiles"]["rougeL_base"]
    assert payload["tiles"]["joules"] is None
    assert [device["phase"] for device in payload["devices"]] == [
        "reported",
        "reported",
        "training",
    ]
    assert sum(device["share"] for device in payload["devices"]) == pytest.approx(1)


def test_granularity_is_computation_over_communication(job: Job) -> None:
    payload = snapshot(job)["rounds"][1]
    compute = sum(part["compute_s"] for part in payload["train"])
    communication = sum(part["download_s"] + part["upload_s"] for part in payload["train"])
    assert payload["granularity"] == pytest.approx(compute / communication)


def test_mean_mfu_is_needed_flops_over_available(job: Job) -> None:
    work = [part for row in snapshot(job)["rounds"] for part in row["train"] if part["mfu"]]
    flops = sum(part["mfu"] * part["compute_s"] * part["peak"] for part in work)
    available = sum(part["compute_s"] * part["peak"] for part in work)
    assert snapshot(job)["tiles"]["mfu"] == pytest.approx(flops / available)


def test_snapshot_has_personalised_scores(job: Job) -> None:
    payload = snapshot(job)
    assert all(device["score"]["personal_rougeL"] is None for device in payload["devices"])
    assert payload["evenness"]["own"] is None and payload["evenness"]["gain"] is None
    row = Round.objects.filter(job=job, phase="closed").order_by("-number")[0]
    parts = list(row.assignments.filter(task="evaluate").order_by("slot"))
    for gain, part in enumerate(parts):
        part.metrics |= {"personal_rougeL": part.metrics["rougeL"] + gain, "personal_loss": 1.0}
        part.examples = 10
        part.save()
    payload = snapshot(job)
    scores = [device["score"] for device in payload["devices"]]
    assert [one["personal_rougeL"] - one["rougeL"] for one in scores] == pytest.approx([0, 1, 2])
    fairness = payload["evenness"]
    assert fairness["gain"] == pytest.approx({"mean": 1, "least": 0, "most": 2})
    assert fairness["shared"]["worst"] == min(one["rougeL"] for one in scores)
    assert 1 / 3 < fairness["own"]["jain"] <= 1
    assert evaluation_means(row)["personal_loss"] == 1.0
    assert not report_faults(parts[0].metrics)


def test_snapshot_of_every_phase(fleet: list[Device]) -> None:
    for phase in ("draft", "queued", "running", "paused", "completed", "failed", "cancelled"):
        job = factories.make_job(fleet, phase, name=phase)
        payload = snapshot(job)
        assert payload["phase"] == phase
        assert payload["eta_s"] is None


def test_snapshot_caches_closed_rounds(job: Job, django_assert_max_num_queries: Any) -> None:
    memory = ClosedRounds()
    first = snapshot(job, memory)
    again = snapshot(job, memory)
    assert first["rounds"] == again["rounds"]
    assert [row["number"] for row in again["rounds"]] == [0, 1, 2]
    Round.objects.filter(job=job, number=2).update(phase="closed", ended_at=timezone.now())
    assert snapshot(job, memory)["rounds"][-1]["phase"] == "closed"
    factories.add_round(job, 3, timezone.now(), "collecting")
    assert [row["number"] for row in snapshot(job, memory)["rounds"]] == [0, 1, 2, 3]
    with django_assert_max_num_queries(8):
        snapshot(job, memory)


def test_rows_convert_to_round_state(job: Job) -> None:
    row = job.rounds.get(number=2)
    state = to_round(row)
    assert state == to_round(row, device_names(job))
    assert state.members == ("pi-kitchen", "jetson-lab", "nuc-office")
    assert {item.device for item in state.assignments} == set(state.members)
    assert set(last_seen(job)) == set(state.members)


def test_job_reader_returns_only_news(job: Job) -> None:
    reader = JobReader(job.pk)
    first = reader.read()
    assert first is not None
    assert len(first["samples"]) == Sample.objects.count()
    assert len(first["events"]) == 4
    second = reader.read()
    assert second is None or set(second["snapshot"]) <= {"headline", "eta_s"}
    factories.grow(job, 3)
    third = reader.read()
    assert third is not None
    assert len(third["samples"]) == 9
    assert not third["events"]


def test_reconnect_resumes_at_the_cursors(job: Job) -> None:
    first = JobReader(job.pk)
    payload = first.read()
    assert payload is not None
    factories.grow(job, 4)
    factories.add_event(job, "something happened")
    back = JobReader(job.pk)
    back.start_at(
        {"events": payload["cursors"]["events"], "samples": payload["cursors"]["samples"]}
    )
    missed = back.read()
    assert missed is not None
    assert len(missed["samples"]) == 12
    assert [event["text"] for event in missed["events"]] == ["something happened"]
    seqs = {(s["device"], s["seq"]) for s in payload["samples"] + missed["samples"]}
    assert len(seqs) == Sample.objects.count()


def test_missed_samples_arrive_in_order_over_several_reads(job: Job) -> None:
    rows = series.job_samples(job)
    cursors = dict.fromkeys(Device.objects.values_list("pk", flat=True), 0)
    seen = []
    for _ in range(100):
        history = series.samples_after(rows, cursors, limit=7)
        if not history.samples:
            break
        seen += [(sample["device"], sample["seq"]) for sample in history.samples]
        cursors = history.cursors
    assert len(seen) == len(set(seen)) == Sample.objects.count()


def test_thinning_keeps_ends_and_extremes(job: Job) -> None:
    samples = [
        {"device": 1, "seq": i, "values": {"loss": 2.0 + (i == 777) - (i == 1234)}}
        for i in range(5000)
    ]
    thinned = series.thin(samples, 200)
    assert len(thinned) <= 220
    assert {0, 777, 1234, 4999} <= {sample["seq"] for sample in thinned}
    assert [s["seq"] for s in thinned] == sorted(s["seq"] for s in thinned)


def test_long_history_is_marked_as_thinned(job: Job) -> None:
    part = job.rounds.get(number=2).assignments.filter(task="train").first()
    factories.add_samples(part, 3000, timezone.now() - timedelta(hours=1))
    history = series.history(series.job_samples(job), [part.device_id], points=600)
    assert history.thinned
    assert len(history.samples) < 900
    part.device.refresh_from_db()
    assert history.cursors[part.device_id] == part.device.last_sample_seq


def test_fleet_reader_returns_changed_devices_and_jobs(job: Job) -> None:
    reader = FleetReader()
    first = reader.read()
    assert first is not None
    assert first["counts"]["online"] + first["counts"]["busy"] == 3
    assert [head["id"] for head in first["jobs"]] == [str(job.pk)]
    Device.objects.filter(name="pi-kitchen").update(last_seen_at=None)
    factories.finish(job)
    second = reader.read()
    assert second is not None
    assert [head["presence"] for head in second["devices"]] == ["never seen"]
    assert second["left"] == [str(job.pk)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (38_200_000, "38.2 MB"),
        (999_999, "1.00 MB"),
        (842e9, "842 GB"),
        (None, "–"),
    ],
)
def test_sizes(value: float | None, text: str) -> None:
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.0412, "41 ms"),
        (0.42, "0.4 s"),
        (38, "38 s"),
        (840, "14 min"),
        (7500, "2 h 05 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text

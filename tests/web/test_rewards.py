"""Rewards of PFIT jobs: job page, report, REST and CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.web import measured
from webapp.devices.models import Device
from webapp.jobs.models import Assignment, Job


@pytest.fixture
def rewarded_job(fleet: list[Device]) -> Job:
    return measured.rewarded_job(fleet, rounds=4)


def live_payload(job: Job, ada: Client) -> Any:
    return ada.get(reverse("api-job-live", args=[job.pk])).json()


def test_snapshot_has_last_rewards_per_device(rewarded_job: Job, ada: Client) -> None:
    payload = live_payload(rewarded_job, ada)
    first, second, third = (device["reward"] for device in payload["devices"])
    assert first == {
        "of": "overlap",
        "least": 0,
        "most": 1,
        "before": 0.2,
        "after": 0.17,
        "round": 2,
        "drawn": 0.18,
    }
    assert second["of"] == "brevity:0.1" and second["after"] == pytest.approx(0.67)
    assert third["of"] == "overlap + 0.5 × brevity:0.1 + 0.5 × leak"
    assert (third["least"], third["most"]) == (-0.5, 1.5)
    parts = {row["number"]: row["train"] for row in payload["rounds"]}
    assert parts[1][0]["reward_after"] == 0.16 and "reward_after" not in parts[3][0]


def test_job_without_rewards_shows_none(job: Job, ada: Client) -> None:
    payload = live_payload(job, ada)
    assert all(device["reward"] is None for device in payload["devices"])
    assert not any("reward" in part for row in payload["rounds"] for part in row["train"])
    for page in ("job", "job-report"):
        assert "Rewards per device" not in ada.get(reverse(page, args=[job.pk])).content.decode()


def test_report_and_csv_show_rewards(rewarded_job: Job, ada: Client) -> None:
    text = ada.get(reverse("job-report", args=[rewarded_job.pk])).content.decode()
    table = text.partition('id="own-rewards"')[2].partition("</table>")[0]
    cells = [cell.partition("</td>")[0].split(">")[-1] for cell in table.split("<td")[1:6]]
    assert cells == ["overlap", "0.150", "0.200", "0.170", "-0.030"]
    assert "training raised the reward of 0 of 3 devices" in text
    answer = ada.get(reverse("api-job-report-csv", args=[rewarded_job.pk]))
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert [rows[0][name] for name in ("reward", "reward_before", "reward_after")] == [
        *("0.14", "0.15", "0.16")
    ]
    assert rows[-3]["reward_before"] == ""


def test_implausible_reward_is_hidden(rewarded_job: Job, ada: Client) -> None:
    for part in Assignment.objects.filter(round__job=rewarded_job, task="train"):
        part.metrics |= {"reward": "much", "reward_before": 1e31, "reward_after": -1e9}
        part.save(update_fields=["metrics"])
    payload = live_payload(rewarded_job, ada)
    assert all(device["reward"]["before"] is None for device in payload["devices"])
    assert all(device["reward"]["drawn"] is None for device in payload["devices"])
    assert ada.get(reverse("job-report", args=[rewarded_job.pk])).status_code == 200

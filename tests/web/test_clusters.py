"""The clusters on a job's page: who folds whom, what of it was done, drawn anew as rounds close."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from tests.web import factories
from webapp.devices.models import Device
from webapp.jobs.models import Job, Participant, Round


@pytest.fixture
def grown(fleet: list[Device]) -> Job:
    """Three trainers of which two are folded by the hub, two rounds old, none of them folded."""
    hub = factories.make_device("hub", 9, role="aggregator")
    hub.datasets.all().delete()
    parents = [f"{device.name}=hub" for device in fleet[:2]]
    job = factories.running_job(fleet[:3], rounds=2, tree={"parents": parents})
    Participant.objects.create(job=job, device=hub, slot=3, dataset="", examples=0)
    Participant.objects.filter(job=job, slot__in=(0, 1)).update(parent=3)
    return job


def fold(job: Job) -> None:
    """Let the hub have folded the first round."""
    row = Round.objects.filter(job=job, number=1).get()
    told = {"slot": 3, "level": 1, "slots": [0, 1], "examples": 9, "bytes_in": 4000}
    row.fold = {"bytes_read": 5000, "clusters": [{**told, "bytes_up": 2000}]}
    row.save(update_fields=["fold"])


def test_the_page_tells_who_folds_whom(ada: Client, grown: Job, fleet: list[Device]) -> None:
    fold(grown)
    text = ada.get(reverse("job", args=[grown.pk])).content.decode()
    assert f"{fleet[0].name}, {fleet[1].name}" in text
    made = Round.objects.filter(job=grown, number__gt=0, phase__in=("closed", "evaluating")).count()
    assert f"1 of {made}</td>" in text
    assert "4.00 kB" in text
    assert "2.00 kB" in text
    assert f"{reverse('job-clusters', args=[grown.pk])}?was={made}" in text


def test_before_the_first_fold_nothing_is_counted(ada: Client, grown: Job) -> None:
    Round.objects.filter(job=grown, number__gt=0).update(phase="collecting")
    text = ada.get(reverse("job-clusters", args=[grown.pk])).content.decode()
    assert "no round is complete yet" in text
    assert "The server folded" not in text


def test_the_part_is_drawn_anew_only_where_it_changed(ada: Client, grown: Job) -> None:
    url = reverse("job-clusters", args=[grown.pk])
    made = Round.objects.filter(job=grown, number__gt=0, phase__in=("closed", "evaluating")).count()
    assert made
    assert ada.get(url, {"was": made}).status_code == 204
    assert ada.get(url, {"was": made - 1}).status_code == 200
    factories.finish(grown)
    over = ada.get(url, {"was": made})
    assert over.status_code == 200
    assert "hx-get" not in over.content.decode(), "a job that is over is not asked again"


def test_a_job_without_a_tree_has_no_clusters(ada: Client, fleet: list[Device]) -> None:
    flat = factories.running_job(fleet, rounds=1)
    assert "clusters-h" not in ada.get(reverse("job", args=[flat.pk])).content.decode()
    assert ada.get(reverse("job-clusters", args=[flat.pk])).status_code == 204

"""The clusters on a job page: heads, their children, and what they merged in each round."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from tests.web import factories
from webapp.devices.models import Device
from webapp.jobs.models import Job, Participant, Round


@pytest.fixture
def tree_job(fleet: list[Device]) -> Job:
    """Three trainers, two of them under a head, with two rounds that are not merged yet."""
    hub = factories.make_device("hub", 9, role="aggregator")
    hub.datasets.all().delete()
    parents = [f"{device.name}=hub" for device in fleet[:2]]
    job = factories.running_job(fleet[:3], rounds=2, tree={"parents": parents})
    Participant.objects.create(job=job, device=hub, slot=3, dataset="", examples=0)
    Participant.objects.filter(job=job, slot__in=(0, 1)).update(parent=3)
    return job


def fold(job: Job) -> None:
    """Mark the first round as merged by the head."""
    row = Round.objects.filter(job=job, number=1).get()
    cluster = {"slot": 3, "level": 1, "slots": [0, 1], "examples": 9, "bytes_in": 4000}
    row.fold = {"bytes_read": 5000, "clusters": [{**cluster, "bytes_up": 2000}]}
    row.save(update_fields=["fold"])


def merged_rounds(job: Job) -> int:
    phases = ("closed", "evaluating")
    return Round.objects.filter(job=job, number__gt=0, phase__in=phases).count()


def test_page_lists_cluster_heads_and_children(
    ada: Client, tree_job: Job, fleet: list[Device]
) -> None:
    fold(tree_job)
    text = ada.get(reverse("job", args=[tree_job.pk])).content.decode()
    assert f"{fleet[0].name}, {fleet[1].name}" in text
    merged = merged_rounds(tree_job)
    assert f"1 of {merged}</td>" in text
    assert "4.00 kB" in text
    assert "2.00 kB" in text
    assert f"{reverse('job-clusters', args=[tree_job.pk])}?was={merged}" in text


def test_clusters_before_the_first_merge(ada: Client, tree_job: Job) -> None:
    Round.objects.filter(job=tree_job, number__gt=0).update(phase="collecting")
    text = ada.get(reverse("job-clusters", args=[tree_job.pk])).content.decode()
    assert "no round is complete yet" in text
    assert "The server folded" not in text


def test_clusters_fragment_is_204_while_unchanged(ada: Client, tree_job: Job) -> None:
    url = reverse("job-clusters", args=[tree_job.pk])
    merged = merged_rounds(tree_job)
    assert merged
    assert ada.get(url, {"was": merged}).status_code == 204
    assert ada.get(url, {"was": merged - 1}).status_code == 200
    factories.finish(tree_job)
    finished = ada.get(url, {"was": merged})
    assert finished.status_code == 200
    assert "hx-get" not in finished.content.decode(), "the page of a finished job does not poll"


def test_job_without_tree_has_no_clusters(ada: Client, fleet: list[Device]) -> None:
    flat = factories.running_job(fleet, rounds=1)
    assert "clusters-h" not in ada.get(reverse("job", args=[flat.pk])).content.decode()
    assert ada.get(reverse("job-clusters", args=[flat.pk])).status_code == 204

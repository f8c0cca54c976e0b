"""Per-device overrides: a launch refuses names of devices that the job lacks."""

from __future__ import annotations

from typing import Any

import pytest

from fedcore.errors import SpecError
from tests.federation import Federation
from webapp.devices.models import Device
from webapp.jobs.lifecycle import services
from webapp.jobs.models import Job

MIXED = {"aggregation": "flexlora", "rank": 4}


@pytest.mark.parametrize("launch", [True, False])
def test_unknown_override_device_lists_known_ones(federation: Federation, launch: bool) -> None:
    federation.devices("pi-kitchen", "pi-porch")
    spec = federation.spec(adapter={**MIXED, "ranks": ["pi-kitchen=2", "pi-parch=4"]})
    with pytest.raises(SpecError) as caught:
        services.create_job(spec, None, launch)
    (fault,) = caught.value.faults
    assert fault.path == "adapter.ranks"
    assert "'pi-parch'" in fault.message and "pi-kitchen, pi-porch" in fault.message
    assert not Job.objects.exists()


def test_override_of_unselected_device_is_refused(federation: Federation) -> None:
    federation.devices("pi-kitchen", "pi-porch")
    groups: dict[str, Any] = {"participation": {"devices": ["pi-kitchen"]}}
    spec = federation.spec(adapter={**MIXED, "ranks": ["pi-porch=2"]}, **groups)
    with pytest.raises(SpecError, match="pi-porch"):
        services.create_job(spec, None)


def test_override_by_machine_applies(federation: Federation) -> None:
    federation.devices("pi-kitchen")
    words = {**MIXED, "ranks": ["raspberry-pi-5=2"]}
    with pytest.raises(SpecError, match="raspberry-pi-5"):
        services.create_job(federation.spec(adapter=words), None)
    Device.objects.update(profile={"board": "raspberry-pi-5"})
    assert services.create_job(federation.spec(adapter=words), None).phase == "queued"


def test_unused_override_is_logged(federation: Federation) -> None:
    federation.device("pi-kitchen")
    federation.device("pi-porch", examples=7)
    job = federation.launch(adapter={**MIXED, "ranks": ["pi-porch=2"]})
    federation.run(job)
    assert "'pi-porch=2': no device of this job is called 'pi-porch'" in federation.log(job)
    assert Job.objects.get().participants.count() == 1

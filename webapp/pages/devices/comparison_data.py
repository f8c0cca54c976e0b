"""What a person asks a comparison of devices for, read from a query; pages and REST share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode
from uuid import UUID

from webapp.devices.models import Device
from webapp.jobs.analysis import device_history
from webapp.jobs.models import Job
from webapp.pages.devices.columns import COLUMNS
from webapp.pages.devices.comparison import REFERENCES, Comparison, compare

SORTS = (*(column.key for column in COLUMNS), "name")


@dataclass(frozen=True)
class Wanted:
    """``job``: figures of this job's trainings alone; None: of each device's newest."""

    job: Job | None
    reference: str
    sort: str

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """What is not understood is left at its default."""
        reference, sort = query.get("reference", ""), query.get("sort", "")
        return cls(
            job=_job(query.get("job", "")),
            reference=reference if reference in REFERENCES else REFERENCES[0],
            sort=sort if sort in SORTS else SORTS[0],
        )

    @property
    def query(self) -> str:
        job = {"job": str(self.job.pk)} if self.job is not None else {}
        return urlencode({**job, "reference": self.reference, "sort": self.sort})

    def comparison(self) -> Comparison:
        """Of every device that is not revoked, in a fixed number of queries."""
        devices = list(Device.objects.filter(revoked_at=None))
        trainings = device_history.last_trainings(devices, self.job)
        return compare(devices, trainings, self.reference, self.sort)


def _job(text: str) -> Job | None:
    try:
        return Job.objects.filter(pk=UUID(text)).first()
    except ValueError:
        return None

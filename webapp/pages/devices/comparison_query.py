"""The query string of a comparison of devices; the page and the REST API share it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlencode
from uuid import UUID

from webapp.devices.models import Device
from webapp.jobs.models import Job
from webapp.jobs.planning.candidates import last_trainings
from webapp.pages.devices.columns import COLUMNS
from webapp.pages.devices.comparison import REFERENCES, Comparison, compare

SORTS = (*(column.key for column in COLUMNS), "name")


@dataclass(frozen=True)
class ComparisonQuery:
    """``job``: compare trainings of this job; None: each device's newest training."""

    job: Job | None
    reference: str
    sort: str

    @classmethod
    def of(cls, query: Mapping[str, str]) -> ComparisonQuery:
        """Parse a query; values that make no sense fall back to the defaults."""
        job = None
        with suppress(ValueError):
            job = Job.objects.filter(pk=UUID(query.get("job", ""))).first()
        reference, sort = query.get("reference", ""), query.get("sort", "")
        return cls(
            job=job,
            reference=reference if reference in REFERENCES else REFERENCES[0],
            sort=sort if sort in SORTS else SORTS[0],
        )

    @property
    def query_string(self) -> str:
        job = {"job": str(self.job.pk)} if self.job is not None else {}
        return urlencode({**job, "reference": self.reference, "sort": self.sort})

    def comparison(self) -> Comparison:
        """Compare every device that is not revoked, in a fixed number of queries."""
        devices = list(Device.objects.filter(revoked_at=None))
        trainings = last_trainings(devices, self.job)
        return compare(devices, trainings, self.reference, self.sort)

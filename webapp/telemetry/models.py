"""Measurements of devices."""

from __future__ import annotations

from django.db import models

from webapp.devices.models import Device
from webapp.jobs.models import Assignment


class Sample(models.Model):
    """What a device measured over the last interval.

    ``seq`` is numbered by the device, has no gaps and is never used twice: (device, seq) makes a
    repeated batch harmless and lets a page ask for what it missed. ``values`` are keyed by the
    names of ``webapp.common.metrics``. Older samples stand for a longer time: ``span_s`` is 0 as
    measured, 10 or 60 once ``webapp.telemetry.rollup`` made one of several; ``seq`` and ``at`` are
    then those of the last.
    """

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="samples")
    seq = models.BigIntegerField()
    assignment = models.ForeignKey(
        Assignment, on_delete=models.CASCADE, null=True, related_name="samples"
    )
    at = models.DateTimeField()
    values = models.JSONField()
    span_s = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["device_id", "seq"]
        constraints = [models.UniqueConstraint(fields=["device", "seq"], name="sample_once")]
        indexes = [
            models.Index(fields=["assignment", "seq"]),
            models.Index(fields=["device", "at"]),
            models.Index(fields=["span_s", "at"]),
        ]

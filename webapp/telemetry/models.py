"""Measurements of devices."""

from __future__ import annotations

from django.db import models

from webapp.devices.models import Device
from webapp.jobs.models import Assignment


class Sample(models.Model):
    """Measurements of a device over one reporting interval.

    The device numbers its samples: ``seq`` has no gaps and is never reused. (device, seq) makes a
    repeated batch harmless and lets a page ask for the samples it missed. ``values`` are keyed by
    the names in ``webapp.common.metric_definitions``. ``span_s`` is 0 for a sample as measured, 10
    or 60 after ``webapp.telemetry.rollup`` merged several; ``seq`` and ``at`` are the last one's.
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

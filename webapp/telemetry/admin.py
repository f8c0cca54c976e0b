"""Measurements in the Django admin."""

from __future__ import annotations

from django.contrib import admin

from webapp.accounts.admin import ReadOnlyAdmin
from webapp.telemetry.models import Sample


@admin.register(Sample)
class SampleAdmin(ReadOnlyAdmin):
    list_display = ["device", "seq", "at", "assignment", "loss", "mfu"]
    list_select_related = ["device", "assignment__device", "assignment__round__job"]
    list_filter = ["device"]
    search_fields = ["device__name", "=assignment__id", "=assignment__round__job__id"]
    date_hierarchy = "at"

    @admin.display()
    def loss(self, sample: Sample) -> float | None:
        value: float | None = sample.values.get("loss")
        return value

    @admin.display(description="MFU")
    def mfu(self, sample: Sample) -> float | None:
        value: float | None = sample.values.get("mfu")
        return value

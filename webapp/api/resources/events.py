"""REST resource: the event log of a job, or of the fleet."""

from __future__ import annotations

import django_filters
from rest_framework import mixins, serializers

from webapp.api.base import MomentFilter, Resource, WholeFilter
from webapp.jobs.models import Event, EventLevel


class EventSerializer(serializers.ModelSerializer[Event]):
    device_name = serializers.CharField(
        source="device.name", read_only=True, allow_null=True, default=None
    )

    class Meta:
        model = Event
        fields = ["id", "job", "seq", "device", "device_name", "level", "text", "at"]
        read_only_fields = fields


class EventFilter(django_filters.FilterSet):  # type: ignore[misc]
    job = django_filters.UUIDFilter(field_name="job_id")
    device = WholeFilter(field_name="device_id", label="id of a device")
    fleet = django_filters.BooleanFilter(
        field_name="job", lookup_expr="isnull", label="only events that belong to no job"
    )
    level = django_filters.MultipleChoiceFilter(choices=EventLevel.choices)
    after = WholeFilter(field_name="seq", lookup_expr="gt", label="newer than this seq of a job")
    since = MomentFilter(field_name="at", lookup_expr="gte")
    until = MomentFilter(field_name="at", lookup_expr="lt")
    ordering = django_filters.OrderingFilter(fields=["at", "seq"])


class Events(mixins.ListModelMixin, mixins.RetrieveModelMixin, Resource):
    """Events with their reasons, newest first."""

    queryset = Event.objects.select_related("device")
    serializer_class = EventSerializer
    filterset_class = EventFilter
    lookup_value_converter = "int"

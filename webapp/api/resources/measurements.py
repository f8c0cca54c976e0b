"""REST resource: time series of one metric, thinned for a chart."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypedDict

import django_filters
from django.db.models import Count, F, Q, QuerySet
from django.db.models.functions import Mod
from drf_spectacular.helpers import forced_singular_serializer
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedcore.errors import Fault
from webapp.api.base import MomentFilter, Resource, WholeField, WholeFilter
from webapp.api.problems import Faulty
from webapp.common.metric_definitions import METRICS
from webapp.devices.models import Device
from webapp.telemetry.models import Sample

READ_AT_MOST = 200_000  # samples read for one answer
Point = tuple[datetime, float]


class PointsField(WholeField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "min_value": 4, "max_value": 5000})


class PointsFilter(WholeFilter):
    """Does not filter rows: the maximum number of points per device."""

    field_class = PointsField

    def filter(self, rows: Any, value: Any) -> Any:
        return rows


class MetricFilter(django_filters.ChoiceFilter):  # type: ignore[misc]
    def filter(self, rows: Any, value: Any) -> Any:
        return rows.filter(values__has_key=value) if value else rows


class MeasurementFilter(django_filters.FilterSet):  # type: ignore[misc]
    metric = MetricFilter(choices=[(name, m.label) for name, m in METRICS.items()], required=True)
    job = django_filters.UUIDFilter(field_name="assignment__round__job_id")
    device = WholeFilter(field_name="device_id", label="id of a device")
    points = PointsFilter(label="maximum points per device; default 500")
    since = MomentFilter(field_name="at", lookup_expr="gte")
    until = MomentFilter(field_name="at", lookup_expr="lt")


class SeriesJson(TypedDict):
    """Points of one device; of ``at[i]`` the value is ``values[i]``."""

    device: int
    device_name: str
    thinned: bool
    at: list[datetime]
    values: list[float]


class SeriesSerializer(serializers.Serializer[Any]):
    device = serializers.IntegerField()
    device_name = serializers.CharField()
    thinned = serializers.BooleanField(help_text="samples were omitted, but no extremes")
    at = serializers.ListField(child=serializers.DateTimeField())
    values = serializers.ListField(child=serializers.FloatField())


class MeasurementsSerializer(serializers.Serializer[Any]):
    metric = serializers.CharField()
    # ``label`` is an attribute of serializers.
    title = serializers.CharField()
    unit = serializers.CharField()
    series = SeriesSerializer(many=True)


class Measurements(Resource):
    """Measurements of devices."""

    queryset = Sample.objects.order_by("device_id", "seq")
    serializer_class = MeasurementsSerializer
    filterset_class = MeasurementFilter
    pagination_class = None

    @extend_schema(responses=forced_singular_serializer(MeasurementsSerializer), filters=True)
    def list(self, request: Request) -> Response:
        """One series per device of a metric, for a job or a device. Extremes are kept.

        Needs `metric` and at least one of `job` and `device`.
        """
        if not request.query_params.get("job") and not request.query_params.get("device"):
            raise Faulty([Fault("job", "name a job, a device, or both")])
        rows = self.filter_queryset(self.get_queryset())
        metric = request.query_params["metric"]
        limit = int(request.query_params.get("points") or 500)
        answer = {
            "metric": metric,
            "title": METRICS[metric].label,
            "unit": METRICS[metric].unit,
            "series": series(rows, metric, limit),
        }
        return Response(answer)


def series(rows: QuerySet[Sample], metric: str, limit: int) -> list[SeriesJson]:
    """Each device's points. Of more than READ_AT_MOST samples, only every n-th is read."""
    counts = dict(rows.order_by("device_id").values_list("device_id").annotate(n=Count("pk")))
    stride = -(-sum(counts.values()) // READ_AT_MOST)
    if stride > 1:
        rows = rows.annotate(nth=Mod(F("seq"), stride)).filter(Q(nth=0) | Q(span_s__gt=0))
    by_device: dict[int, list[Point]] = {device: [] for device in counts}
    columns = ("device_id", "at", f"values__{metric}")
    for device, at, value in rows.values_list(*columns).iterator(2000):
        by_device.setdefault(device, []).append((at, value))
    names = dict(Device.objects.filter(pk__in=by_device).values_list("pk", "name"))
    table: list[SeriesJson] = []
    for device, points in by_device.items():
        thinned = extremes(points, limit)
        table.append(
            {
                "device": device,
                "device_name": names[device],
                "thinned": len(thinned) < counts.get(device, 0),
                "at": [at for at, _ in thinned],
                "values": [value for _, value in thinned],
            }
        )
    return table


def extremes(points: Sequence[Point], limit: int) -> list[Point]:
    """At most ``limit`` points: both ends, and the lowest and highest of each interval."""
    if len(points) <= limit:
        return list(points)
    indices = {0, len(points) - 1}
    intervals = max(1, (limit - 2) // 2)
    for number in range(intervals):
        span = range(number * len(points) // intervals, (number + 1) * len(points) // intervals)
        indices.add(min(span, key=lambda i: points[i][1]))
        indices.add(max(span, key=lambda i: points[i][1]))
    return [points[i] for i in sorted(indices)]

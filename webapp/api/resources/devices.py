"""REST resource: devices, their datasets and their measurements."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from webapp.accounts.access import EDIT_DEVICE, REVOKE_DEVICE
from webapp.accounts.models import Role
from webapp.api.base import AnyAccept, MomentFilter, Resource, StrictSerializer, WholeFilter, person
from webapp.common import csv_file
from webapp.devices.models import Dataset, Device, DeviceRole
from webapp.jobs.lifecycle import enrolment
from webapp.pages.devices.comparison import REFERENCES, csv_rows, to_json
from webapp.pages.devices.comparison_query import SORTS, ComparisonQuery
from webapp.telemetry.models import Sample

COMPARED = [
    OpenApiParameter("job", OpenApiTypes.UUID, description="only figures of this job's trainings"),
    OpenApiParameter("reference", str, enum=REFERENCES, description="reference GPU; default h200"),
    OpenApiParameter("sort", str, enum=SORTS, description="largest first; default peak"),
]


class DatasetSerializer(serializers.ModelSerializer[Dataset]):
    class Meta:
        model = Dataset
        fields = ["name", "domain", "examples", "size_bytes", "columns"]


class DeviceSerializer(serializers.ModelSerializer[Device]):
    presence = serializers.ChoiceField(
        choices=["revoked", "never seen", "offline", "busy", "online"], read_only=True
    )
    reason = serializers.SerializerMethodField()
    can_work = serializers.BooleanField(read_only=True)
    datasets = DatasetSerializer(many=True, read_only=True)

    class Meta:
        model = Device
        fields = [
            "id",
            "name",
            "role",
            "presence",
            "reason",
            "can_work",
            "activity",
            "profile",
            "datasets",
            "agent_version",
            "last_seen_at",
            "last_sample_seq",
            "revoked_at",
            "created_at",
        ]
        read_only_fields = [name for name in fields if name not in ("name", "role")]

    def get_reason(self, device: Device) -> str:
        """Why the device gets no work, or what to mend on it; empty where there is nothing."""
        return str(device.ability or "")


class DeviceChange(StrictSerializer, serializers.ModelSerializer[Device]):
    class Meta:
        model = Device
        fields = ["name", "role"]


class SampleSerializer(serializers.ModelSerializer[Sample]):
    class Meta:
        model = Sample
        fields = ["seq", "at", "assignment", "values"]


class DeviceFilter(django_filters.FilterSet):  # type: ignore[misc]
    name = django_filters.CharFilter(lookup_expr="icontains", label="part of the name")
    role = django_filters.ChoiceFilter(choices=DeviceRole.choices)
    online = django_filters.BooleanFilter(method="by_online", label="seen recently")
    revoked = django_filters.BooleanFilter(
        field_name="revoked_at", lookup_expr="isnull", exclude=True
    )
    domain = django_filters.CharFilter(
        field_name="datasets__domain", distinct=True, label="has data of this domain"
    )
    dataset = django_filters.CharFilter(
        field_name="datasets__name", distinct=True, label="has this dataset"
    )
    ordering = django_filters.OrderingFilter(fields=["name", "last_seen_at", "created_at"])

    def by_online(self, rows: QuerySet[Device], _name: str, value: bool) -> QuerySet[Device]:
        online = Q(pk__in=Device.online().values("pk"))
        return rows.filter(online if value else ~online)


class SampleFilter(django_filters.FilterSet):  # type: ignore[misc]
    after = WholeFilter(field_name="seq", lookup_expr="gt", label="newer than this seq")
    assignment = django_filters.UUIDFilter(field_name="assignment_id")
    since = MomentFilter(field_name="at", lookup_expr="gte")
    until = MomentFilter(field_name="at", lookup_expr="lt")


class Devices(mixins.ListModelMixin, mixins.RetrieveModelMixin, Resource):
    """Devices of the fleet."""

    queryset = Device.objects.prefetch_related("datasets")
    serializer_class = DeviceSerializer
    filterset_class = DeviceFilter
    lookup_value_converter = "int"
    roles = {"partial_update": EDIT_DEVICE, "revoke": REVOKE_DEVICE, "samples": Role.VIEWER}

    @extend_schema(request=DeviceChange, responses=DeviceSerializer)
    def partial_update(self, request: Request, **_: Any) -> Response:
        """Rename a device or change its role."""
        device = self.get_object()
        change = DeviceChange(device, data=request.data, partial=True)
        change.is_valid(raise_exception=True)
        change.save()
        return Response(DeviceSerializer(self.get_object()).data)

    @extend_schema(request=None, responses=DeviceSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def revoke(self, request: Request, **_: Any) -> Response:
        """Revoke the device: its token stops working and its line ends. Can be repeated."""
        enrolment.revoke(self.get_object(), person(request))
        return Response(DeviceSerializer(self.get_object()).data)

    @extend_schema(parameters=COMPARED, responses=OpenApiTypes.OBJECT)
    @action(detail=False, filterset_class=None, pagination_class=None)
    def comparison(self, request: Request) -> Response:
        """Peak, bandwidth, tokens/s, MFU and tokens/s/W of every device and a reference GPU."""
        return Response(to_json(ComparisonQuery.of(request.query_params.dict()).comparison()))

    @extend_schema(parameters=COMPARED, responses={(200, "text/csv"): OpenApiTypes.STR})
    @action(
        detail=False,
        url_path="comparison/csv",
        filterset_class=None,
        pagination_class=None,
        content_negotiation_class=AnyAccept,
    )
    def comparison_csv(self, request: Request) -> HttpResponse:
        """The comparison as a CSV file."""
        comparison = ComparisonQuery.of(request.query_params.dict()).comparison()
        return csv_file.csv_response(csv_rows(comparison), "devices")

    @extend_schema(responses=SampleSerializer(many=True))
    @action(detail=True, serializer_class=SampleSerializer, filterset_class=SampleFilter)
    def samples(self, request: Request, pk: int) -> Response:
        """The device's samples as it reported them, oldest first."""
        device = get_object_or_404(Device, pk=pk)
        rows = self.filter_queryset(Sample.objects.filter(device=device).order_by("seq"))
        page = self.paginate_queryset(rows)
        return self.get_paginated_response(SampleSerializer(page, many=True).data)

"""REST resource: one-time tokens for the enrolment of devices."""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import Any

import django_filters
from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from webapp.accounts.access import ENROL
from webapp.api.base import Resource, StrictSerializer, person
from webapp.devices.models import DeviceRole, Enrolment
from webapp.jobs.lifecycle.enrolment import create_enrolment

DAY_S = 86_400
STATES = ["waiting", "used", "expired"]


class EnrolmentSerializer(serializers.ModelSerializer[Enrolment]):
    state = serializers.ChoiceField(choices=STATES, read_only=True)
    created_by = serializers.CharField(
        source="created_by.username", read_only=True, allow_null=True, default=None
    )

    class Meta:
        model = Enrolment
        fields = [
            "id",
            "name",
            "role",
            "state",
            "device",
            "expires_at",
            "used_at",
            "created_by",
            "created_at",
        ]
        read_only_fields = fields


class NewEnrolment(StrictSerializer):
    name = serializers.CharField(
        max_length=100, allow_blank=True, default="", help_text="empty: the device chooses its name"
    )
    role = serializers.ChoiceField(choices=DeviceRole.choices, default=DeviceRole.TRAINER)
    valid_for_s = serializers.IntegerField(min_value=60, max_value=30 * DAY_S, default=DAY_S)


class EnrolmentCreated(EnrolmentSerializer):
    token = serializers.CharField(help_text="shown only once")
    command = serializers.CharField(help_text="command to run on the device")

    class Meta(EnrolmentSerializer.Meta):
        fields = [*EnrolmentSerializer.Meta.fields, "token", "command"]
        read_only_fields = fields


class EnrolmentFilter(django_filters.FilterSet):  # type: ignore[misc]
    state = django_filters.ChoiceFilter(choices=[(s, s) for s in STATES], method="by_state")
    name = django_filters.CharFilter(lookup_expr="icontains", label="part of the name")
    ordering = django_filters.OrderingFilter(fields=["created_at", "expires_at", "used_at"])

    def by_state(self, rows: QuerySet[Enrolment], _name: str, state: str) -> QuerySet[Enrolment]:
        if state == "used":
            return rows.filter(used_at__isnull=False)
        now = timezone.now()
        unused = rows.filter(used_at=None)
        return (
            unused.filter(expires_at__lte=now)
            if state == "expired"
            else unused.filter(expires_at__gt=now)
        )


class Enrolments(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, mixins.DestroyModelMixin, Resource
):
    """Enrolment tokens. Deleting a waiting one revokes it."""

    queryset = Enrolment.objects.select_related("created_by")
    serializer_class = EnrolmentSerializer
    filterset_class = EnrolmentFilter
    lookup_value_converter = "int"
    roles = {"create": ENROL, "destroy": ENROL}

    @extend_schema(request=NewEnrolment, responses={201: EnrolmentCreated})
    def create(self, request: Request, **_: Any) -> Response:
        """Create a one-time token. Only this answer contains it."""
        new = NewEnrolment(data=request.data)
        new.is_valid(raise_exception=True)
        values = new.validated_data
        enrolment, token = create_enrolment(
            person(request),
            values["name"],
            values["role"],
            timedelta(seconds=values["valid_for_s"]),
        )
        enrolment.token, enrolment.command = token, command(token)  # type: ignore[attr-defined]
        return Response(EnrolmentCreated(enrolment).data, status=201)


def command(token: str) -> str:
    """The command to run on the device."""
    words = ["python", "-m", "workers.agent", "enroll", "--server", settings.PUBLIC_URL]
    return shlex.join([*words, "--token", token])

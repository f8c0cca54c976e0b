"""REST resources: rounds and assignments."""

from __future__ import annotations

from typing import Any

import django_filters
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fedcore.rounds.types import AssignmentPhase, RoundPhase, Task
from webapp.accounts.access import PIN_MODEL
from webapp.api.base import Resource, WholeFilter, person
from webapp.jobs.lifecycle import pinning
from webapp.jobs.models import Assignment, Round


class RoundSerializer(serializers.ModelSerializer[Round]):
    model_removed_at = serializers.DateTimeField(
        source="global_artefact.removed_at", read_only=True, default=None, allow_null=True
    )

    class Meta:
        model = Round
        fields = [
            "id",
            "job",
            "number",
            "attempt",
            "phase",
            "reason",
            "members",
            "evaluators",
            "policy",
            "fold",
            "evaluation",
            "base_artefact",
            "global_artefact",
            "state_artefact",
            "pinned_at",
            "model_removed_at",
            "deadline_at",
            "created_at",
            "started_at",
            "collected_at",
            "aggregated_at",
            "ended_at",
        ]
        read_only_fields = fields


class AssignmentSerializer(serializers.ModelSerializer[Assignment]):
    job = serializers.UUIDField(source="round.job_id", read_only=True)
    round_number = serializers.IntegerField(source="round.number", read_only=True)
    device_name = serializers.CharField(source="device.name", read_only=True)

    class Meta:
        model = Assignment
        fields = [
            "id",
            "job",
            "round",
            "round_number",
            "device",
            "device_name",
            "slot",
            "task",
            "attempt",
            "phase",
            "reason",
            "buffered_in",
            "retryable",
            "examples",
            "metrics",
            "update_artefact",
            "bytes_up",
            "bytes_down",
            "lease_until",
            "offered_at",
            "sent_at",
            "accepted_at",
            "ended_at",
        ]
        read_only_fields = fields


def phases(kind: type[RoundPhase] | type[AssignmentPhase] | type[Task]) -> list[tuple[str, str]]:
    return [(item.value, item.value) for item in kind]


class RoundFilter(django_filters.FilterSet):  # type: ignore[misc]
    job = django_filters.UUIDFilter(field_name="job_id")
    number = WholeFilter(field_name="number")
    phase = django_filters.MultipleChoiceFilter(choices=phases(RoundPhase))
    ordering = django_filters.OrderingFilter(fields=["number", "created_at", "ended_at"])


class AssignmentFilter(django_filters.FilterSet):  # type: ignore[misc]
    job = django_filters.UUIDFilter(field_name="round__job_id")
    round = WholeFilter(field_name="round_id", label="id of a round")
    device = WholeFilter(field_name="device_id", label="id of a device")
    task = django_filters.ChoiceFilter(choices=phases(Task))
    phase = django_filters.MultipleChoiceFilter(choices=phases(AssignmentPhase))
    ordering = django_filters.OrderingFilter(fields=["offered_at", "accepted_at", "ended_at"])


class Rounds(mixins.ListModelMixin, mixins.RetrieveModelMixin, Resource):
    """Rounds of jobs. `attempt` counts how often a round was started."""

    queryset = Round.objects.select_related("global_artefact").order_by(
        "job_id", "number", "attempt"
    )
    serializer_class = RoundSerializer
    filterset_class = RoundFilter
    lookup_value_converter = "int"
    roles = {"pin": PIN_MODEL, "unpin": PIN_MODEL}

    @extend_schema(request=None, responses=RoundSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def pin(self, request: Request, **_: Any) -> Response:
        """Keep the model of this round as long as its job. 409 if it was removed."""
        row = pinning.pin(self.get_object().pk, person(request))
        return Response(RoundSerializer(row).data)

    @extend_schema(request=None, responses=RoundSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def unpin(self, request: Request, **_: Any) -> Response:
        """Leave the model of this round to normal retention."""
        row = pinning.unpin(self.get_object().pk, person(request))
        return Response(RoundSerializer(row).data)


class Assignments(mixins.ListModelMixin, mixins.RetrieveModelMixin, Resource):
    """One device's task in one round."""

    queryset = Assignment.objects.select_related("round", "device")
    serializer_class = AssignmentSerializer
    filterset_class = AssignmentFilter
    lookup_value_converter = "uuid"

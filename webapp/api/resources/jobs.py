"""REST resource: jobs."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import OuterRef, Prefetch, Subquery
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fedcore.errors import Fault
from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.types import RoundPhase
from webapp.accounts.access import CREATE_JOB, DELETE_JOB, MOVE_JOB
from webapp.api.base import AnyAccept, MomentFilter, Resource, person, read_spec
from webapp.api.problems import Faulty
from webapp.api.resources.events import EventFilter, EventSerializer
from webapp.api.schema import SPEC_REF
from webapp.common import csv_file
from webapp.jobs.analysis import baseline_comparison
from webapp.jobs.analysis.snapshot import snapshot
from webapp.jobs.lifecycle.pinning import delete_job
from webapp.jobs.lifecycle.services import create_job, move
from webapp.jobs.models import Event, Job, Participant, Round
from webapp.jobs.report import job_report

LAUNCH = OpenApiParameter("launch", bool, description="`false` saves a draft", default=True)


class ParticipantSerializer(serializers.ModelSerializer[Participant]):
    device_name = serializers.CharField(source="device.name", read_only=True)

    class Meta:
        model = Participant
        fields = ["slot", "device", "device_name", "dataset", "examples"]


class JobHead(serializers.ModelSerializer[Job]):
    created_by = serializers.CharField(
        source="created_by.username", read_only=True, allow_null=True, default=None
    )
    rounds = serializers.IntegerField(source="spec.rounds", read_only=True)
    last_closed_round = serializers.IntegerField(read_only=True, allow_null=True)

    class Meta:
        model = Job
        fields = [
            "id",
            "name",
            "phase",
            "reason",
            "rounds",
            "last_closed_round",
            "alone_of",
            "created_by",
            "created_at",
            "queued_at",
            "started_at",
            "ended_at",
        ]
        read_only_fields = fields


class JobSerializer(JobHead):
    participants = ParticipantSerializer(many=True, read_only=True)

    class Meta(JobHead.Meta):
        fields = [
            *JobHead.Meta.fields,
            "spec",
            "model_info",
            "model_fingerprint",
            "global_artefact",
            "merged_artefact",
            "participants",
            "event_seq",
        ]
        read_only_fields = fields


class JobFilter(django_filters.FilterSet):  # type: ignore[misc]
    name = django_filters.CharFilter(lookup_expr="icontains", label="part of the name")
    phase = django_filters.MultipleChoiceFilter(choices=[(p.value, p.value) for p in JobPhase])
    created_by = django_filters.CharFilter(field_name="created_by__username")
    created_after = MomentFilter(field_name="created_at", lookup_expr="gte")
    created_before = MomentFilter(field_name="created_at", lookup_expr="lt")
    alone_of = django_filters.UUIDFilter(
        field_name="alone_of",
        label="a job: only its local-only baselines, which are not listed otherwise",
    )
    ordering = django_filters.OrderingFilter(
        fields=["name", "phase", "created_at", "started_at", "ended_at"]
    )


class JobEventFilter(EventFilter):
    job = None
    fleet = None


def jobs() -> Any:
    closed = Round.objects.filter(job=OuterRef("pk"), phase=RoundPhase.CLOSED.value)
    newest = closed.order_by("-number").values("number")[:1]
    return Job.objects.select_related("created_by").annotate(last_closed_round=Subquery(newest))


class Jobs(mixins.ListModelMixin, mixins.RetrieveModelMixin, Resource):
    """Federated jobs."""

    queryset = Job.objects.none()
    serializer_class = JobSerializer
    filterset_class = JobFilter
    lookup_value_converter = "uuid"
    roles = {
        "create": CREATE_JOB,
        "ask_alone": CREATE_JOB,
        **dict.fromkeys(["launch", "pause", "resume", "retry", "cancel"], MOVE_JOB),
        "destroy": DELETE_JOB,
    }

    def get_queryset(self) -> Any:
        if self.action == "list":
            by_parent = "alone_of" in self.request.query_params
            return jobs() if by_parent else jobs().filter(alone_of=None)
        # Not "participants__device": Django writes an OR for each device then.
        participants = Participant.objects.select_related("device")
        return jobs().prefetch_related(Prefetch("participants", participants))

    def get_serializer_class(self) -> Any:
        return JobHead if self.action == "list" else JobSerializer

    @extend_schema(request=SPEC_REF, parameters=[LAUNCH], responses={201: JobSerializer})
    def create(self, request: Request, **_: Any) -> Response:
        """Create a job from its specification. All faults are reported together."""
        launch = query_boolean(request, "launch", default=True)
        job = create_job(read_spec(request), person(request), launch=launch)
        return Response(JobSerializer(self.get_queryset().get(pk=job.pk)).data, status=201)

    @extend_schema(responses=OpenApiTypes.OBJECT)
    @action(detail=True, filterset_class=None)
    def live(self, request: Request, **_: Any) -> Response:
        """The job's live state, as the WebSocket of its page sends it."""
        return Response(snapshot(self.get_object()))

    @extend_schema(responses=OpenApiTypes.OBJECT)
    @action(detail=True, filterset_class=None)
    def report(self, request: Request, **_: Any) -> Response:
        """The report: good, bad and ugly findings with evidence; `thin` says why there is none."""
        return Response(job_report.report_json(self.get_object()))

    @extend_schema(responses={(200, "text/csv"): OpenApiTypes.STR})
    @action(
        detail=True,
        url_path="report/csv",
        filterset_class=None,
        content_negotiation_class=AnyAccept,
    )
    def report_csv(self, request: Request, **_: Any) -> HttpResponse:
        """All figures of all trainings as CSV, one row per device and round."""
        job = self.get_object()
        return csv_file.csv_response(job_report.rows(job), f"{job.name}-trainings")

    @extend_schema(responses=OpenApiTypes.OBJECT)
    @action(detail=True, filterset_class=None)
    def alone(self, request: Request, **_: Any) -> Response:
        """Each device's gain over its local-only baseline, as far as baselines exist."""
        return Response(baseline_comparison.comparison_json(self.get_object()))

    @extend_schema(request=None, responses=OpenApiTypes.OBJECT)
    @alone.mapping.post
    def ask_alone(self, request: Request, **_: Any) -> Response:
        """Start the local-only baselines. They take about as long as the job's training."""
        job = self.get_object()
        baseline_comparison.start_baseline(job.pk, person(request))
        return Response(baseline_comparison.comparison_json(job))

    @extend_schema(responses=EventSerializer(many=True))
    @action(detail=True, filterset_class=JobEventFilter)
    def events(self, request: Request, pk: Any) -> Response:
        """The job's event log, newest first; `after`: only events with a greater `seq`."""
        job = get_object_or_404(Job.objects.only("pk"), pk=pk)
        rows = Event.objects.filter(job=job).select_related("device")
        page = self.paginate_queryset(self.filter_queryset(rows))
        return self.get_paginated_response(EventSerializer(page, many=True).data)

    def destroy(self, request: Request, **_: Any) -> Response:
        """Delete a finished job with its models and updates. 409 if it is not finished."""
        delete_job(self.get_object().pk, person(request))
        return Response(status=204)

    def _move(self, request: Request, name: str) -> Response:
        job = move(self.get_object().pk, name, person(request))
        return Response(JobSerializer(self.get_queryset().get(pk=job.pk)).data)

    @extend_schema(request=None, responses=JobSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def launch(self, request: Request, **_: Any) -> Response:
        """Launch a draft."""
        return self._move(request, "launch")

    @extend_schema(request=None, responses=JobSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def pause(self, request: Request, **_: Any) -> Response:
        """Pause the job. The devices stop within seconds; the round is repeated on resume."""
        return self._move(request, "pause")

    @extend_schema(request=None, responses=JobSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def resume(self, request: Request, **_: Any) -> Response:
        """Resume a paused job."""
        return self._move(request, "resume")

    @extend_schema(request=None, responses=JobSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def retry(self, request: Request, **_: Any) -> Response:
        """Repeat the failed round of a failed job."""
        return self._move(request, "retry")

    @extend_schema(request=None, responses=JobSerializer)
    @action(detail=True, methods=["post"], filterset_class=None)
    def cancel(self, request: Request, **_: Any) -> Response:
        """Cancel the job. The model of its last closed round is kept."""
        return self._move(request, "cancel")


def query_boolean(request: Request, name: str, default: bool) -> bool:
    """A boolean in the query."""
    text = request.query_params.get(name, str(default)).lower()
    if text not in ("true", "false"):
        raise Faulty([Fault(name, "give true or false")])
    return text == "true"

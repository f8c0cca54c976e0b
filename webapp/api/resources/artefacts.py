"""REST resource: artefacts, which are immutable files named by SHA-256."""

from __future__ import annotations

import re

import django_filters
from django.http import Http404, HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from webapp.accounts.access import READ_UPDATES, may, refusal
from webapp.accounts.models import Role
from webapp.api.base import AnyAccept, Resource, person
from webapp.api.problems import problem
from webapp.jobs.artefacts.store import removed_text
from webapp.jobs.artefacts.streaming import stream
from webapp.jobs.models import Artefact, ArtefactKind

# One device's update reveals more about its data than an average.
RESTRICTED = {ArtefactKind.UPDATE}


class ArtefactSerializer(serializers.ModelSerializer[Artefact]):
    class Meta:
        model = Artefact
        fields = ["sha256", "size_bytes", "kind", "origin", "created_at", "removed_at"]
        read_only_fields = fields


SHA256 = re.compile(r"[0-9a-f]{64}")


class ArtefactFilter(django_filters.FilterSet):  # type: ignore[misc]
    kind = django_filters.ChoiceFilter(choices=ArtefactKind.choices)
    origin = django_filters.CharFilter(lookup_expr="icontains", label="part of the origin")
    ordering = django_filters.OrderingFilter(fields=["created_at", "size_bytes"])


class Artefacts(mixins.ListModelMixin, mixins.RetrieveModelMixin, Resource):
    """Models, updates and strategy states as files."""

    queryset = Artefact.objects.all()
    serializer_class = ArtefactSerializer
    filterset_class = ArtefactFilter
    lookup_value_converter = "str"
    roles = {"bytes": Role.VIEWER}

    def get_object(self) -> Artefact:
        if not SHA256.fullmatch(self.kwargs["pk"]):  # PostgreSQL refuses some keys
            raise Http404
        artefact: Artefact = super().get_object()
        return artefact

    @extend_schema(
        parameters=[
            OpenApiParameter("Range", str, "header", description="`bytes=a-b`: only this part")
        ],
        responses={
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
            (206, "application/octet-stream"): OpenApiTypes.BINARY,
            410: OpenApiResponse(description="Its bytes were removed because nothing needed them"),
            304: OpenApiResponse(description="Not modified: `If-None-Match` holds its SHA-256"),
        },
    )
    @action(detail=True, filterset_class=None, content_negotiation_class=AnyAccept)
    def bytes(self, request: Request, **_: str) -> HttpResponseBase:
        """Download an artefact or a range of it. A single device's update needs the role admin."""
        artefact = self.get_object()
        if artefact.kind in RESTRICTED and not may(person(request), READ_UPDATES):
            raise PermissionDenied(refusal(READ_UPDATES))
        if artefact.removed_at is not None:
            return problem(410, removed_text(artefact))
        name = f"{artefact.kind}-{artefact.sha256[:12]}.safetensors"
        answer = stream(request._request, artefact, name)
        if answer.status_code == 416:
            text = f"the range is outside the {artefact.size_bytes} bytes"
            return problem(416, text, headers={"Content-Range": answer["Content-Range"]})
        return answer

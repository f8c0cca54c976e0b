"""REST resource: downloads of the tuned model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django import forms
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedcore.errors import Fault
from webapp.api.base import AnyAccept, Resource
from webapp.api.problems import Faulty
from webapp.jobs.artefacts import download
from webapp.jobs.models import Job

WAIT = inline_serializer("BeingMade", {"detail": serializers.CharField()})
ANSWERS: Any = {(200, "application/zip"): OpenApiTypes.BINARY, (202, "application/json"): WAIT}
ROUND = OpenApiParameter(
    "round", OpenApiTypes.INT, description="the model of this round; default: the newest"
)


class Downloads(Resource):
    """Downloads of a job. 202 with `Retry-After` while the merged model is being made."""

    queryset = Job.objects.select_related("global_artefact", "merged_artefact")
    serializer_class = serializers.Serializer
    pagination_class = None
    filter_backends = []
    content_negotiation_class = AnyAccept

    @extend_schema(parameters=[ROUND], responses=ANSWERS)
    def adapter(self, request: Request, pk: UUID) -> HttpResponseBase:
        """The adapter as a zip of a folder that `PeftModel.from_pretrained` loads."""
        number = query_count(request, "round")
        return self._sent(lambda job: download.adapter(request._request, job, number), pk)

    @extend_schema(responses=ANSWERS)
    def merged(self, request: Request, pk: UUID) -> HttpResponseBase:
        """The merged model as a zip of a folder for `AutoModelForSeq2SeqLM.from_pretrained`."""
        return self._sent(lambda job: download.merged(request._request, job), pk)

    def _sent(self, make: Callable[[Job], HttpResponseBase], pk: UUID) -> HttpResponseBase:
        job = get_object_or_404(self.get_queryset(), pk=pk)
        try:
            return make(job)
        except download.BeingMade as wait:
            headers = {"Retry-After": str(wait.retry_after_s)}
            return Response({"detail": str(wait)}, status=202, headers=headers)


def query_count(request: Request, name: str) -> int | None:
    """A non-negative integer in the query."""
    field = forms.IntegerField(required=False, min_value=0, max_value=2**31 - 1)
    try:
        number: int | None = field.clean(request.query_params.get(name))
    except forms.ValidationError as error:
        raise Faulty([Fault(name, message) for message in error.messages]) from error
    return number

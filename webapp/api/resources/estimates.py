"""REST resource: estimated cost of a job before its launch."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from webapp.accounts.models import Role
from webapp.api.base import Resource, read_spec
from webapp.api.schema import SPEC_REF
from webapp.jobs.analysis.device_history import devices_with_data
from webapp.jobs.lifecycle.services import check_devices
from webapp.jobs.planning.candidates import last_trainings
from webapp.jobs.planning.job_estimate import estimate


class PartSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="the device")
    fits = serializers.BooleanField()
    why = serializers.CharField(allow_blank=True, help_text="why it does not fit")
    note = serializers.CharField(allow_blank=True)
    dataset = serializers.CharField(allow_blank=True)
    examples = serializers.IntegerField()
    seconds = serializers.FloatField(allow_null=True, help_text="of one round")


class EstimateSerializer(serializers.Serializer[Any]):
    parts = PartSerializer(many=True)
    per_round = serializers.IntegerField(help_text="devices that train in a round")
    rounds = serializers.IntegerField()
    parameters = serializers.IntegerField(allow_null=True)
    trainable = serializers.IntegerField(allow_null=True)
    device_bytes = serializers.IntegerField(
        allow_null=True, help_text="of one device in one round, both ways"
    )
    total_bytes = serializers.IntegerField(allow_null=True)
    round_s = serializers.FloatField(allow_null=True)
    total_s = serializers.FloatField(allow_null=True)
    assumed = serializers.ListField(child=serializers.CharField())


class Estimates(Resource):
    serializer_class = EstimateSerializer
    pagination_class = None
    filter_backends = []
    roles = {"create": Role.VIEWER}

    @extend_schema(request=SPEC_REF, responses={200: EstimateSerializer})
    def create(self, request: Request) -> Response:
        """Estimate fitting devices, bytes and time, with the assumptions. Nothing is stored.

        `null` if the model's sizes or a measured device are missing.
        """
        spec = read_spec(request)
        check_devices(spec)
        devices = list(devices_with_data().filter(revoked_at=None).order_by("name"))
        answer = estimate(spec, devices, last_trainings(devices))
        return Response(EstimateSerializer(answer).data)

"""Views of the device API (docs/reference/protocol.md). Every call can be repeated."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions
from rest_framework.decorators import (
    api_view,
    authentication_classes,
    parser_classes,
    permission_classes,
    throttle_classes,
)
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from fedcore.formats.line_bodies import Accept
from webapp.api.device.device_tokens import (
    DeviceThrottle,
    DeviceTokenAuthentication,
    IsDevice,
)
from webapp.api.device.downloads import download
from webapp.api.device.serializers import EnrolSerializer
from webapp.api.parsers import StrictJSONParser
from webapp.common.address_limits import ENROL_LIMIT
from webapp.devices.ability import AGENT_TOO_OLD
from webapp.devices.models import Device
from webapp.devices.signing import public_key
from webapp.jobs.artefacts.store import ArtefactRefused
from webapp.jobs.lifecycle import enrolment
from webapp.jobs.lifecycle.transitions import AssignmentRefused
from webapp.line import assignments
from webapp.line.calls import Call, Origin
from webapp.line.opening import note_refused_agent, token_of

UPDATE_AGENT = "this site needs a newer agent: update it (pip, image or git) and start it again"


class CallRefused(exceptions.APIException):
    """A problem with a status and a reason."""

    def __init__(self, detail: str, status: int) -> None:
        self.status_code = status
        super().__init__(detail)


def device_call(methods: list[str], schema: type[Serializer[Any]] | None = None) -> Any:
    """Decorator of a view that only enrolled devices may call; ``schema`` describes the body."""

    def wrap(view: Any) -> Any:
        view = throttle_classes([DeviceThrottle])(view)
        view = permission_classes([IsDevice])(view)
        view = authentication_classes([DeviceTokenAuthentication])(view)
        view = parser_classes([StrictJSONParser])(view)
        view = api_view(methods)(view)
        return extend_schema(tags=["device"], request=schema, responses={200: OpenApiTypes.OBJECT})(
            view
        )

    return wrap


def _device(request: Request) -> Device:
    assert isinstance(request.auth, Device)
    return request.auth


@extend_schema(tags=["device"], request=EnrolSerializer, responses={201: OpenApiTypes.OBJECT})
@api_view(["POST"])
@authentication_classes([])
@permission_classes([])
@throttle_classes([])  # ENROL_LIMIT
@parser_classes([StrictJSONParser])
def enrol(request: Request) -> Response:
    """Exchange a one-time token for this device's credential."""
    ENROL_LIMIT.take(request)
    serializer = EnrolSerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    try:
        admission = enrolment.enrol(**serializer.validated_data)
    except enrolment.EnrolmentRefused as refusal:
        raise CallRefused(str(refusal), refusal.status) from refusal
    ENROL_LIMIT.give_back(request)
    device = admission.device
    answer = {
        "device": {"id": device.pk, "name": device.name, "role": device.role},
        "api_token": admission.api_token,
        "signing_public_key": public_key(),
    }
    return Response(answer, status=201)


@extend_schema(exclude=True)
@api_view(["POST"])
@authentication_classes([])
@permission_classes([])
def outdated(request: Request, /, **_path: Any) -> Response:
    """Calls of agents from before the line: whoever makes one must be updated."""
    note_refused_agent(token_of(request.headers.get("Authorization", "")), AGENT_TOO_OLD)
    raise CallRefused(UPDATE_AGENT, 426)


@device_call(["POST"])
def unenrol(request: Request) -> Response:
    """Revoke this device: its credential is deleted."""
    enrolment.revoke(_device(request), None)
    return Response(status=204)


@device_call(["GET"])
def assignment(request: Request, pk: UUID) -> Response:
    """What accepting this assignment returned, where it does not fit into a message."""
    device = _device(request)
    origin = Origin(device.pk, device.line_epoch, device.boot_id)
    (outcome,) = assignments.accept([Call(device, origin, Accept(pk))])
    if isinstance(outcome, AssignmentRefused):
        raise CallRefused(str(outcome), 409) from outcome
    if isinstance(outcome, Exception):
        raise outcome
    return Response(outcome)


@device_call(["GET"])
def artefact(request: Request, sha256: str) -> HttpResponseBase:
    """Download an artefact that one of this device's open assignments needs."""
    try:
        return download(request._request, _device(request), sha256)
    except AssignmentRefused as refusal:
        raise CallRefused(str(refusal), 409) from refusal
    except ArtefactRefused as refusal:
        raise CallRefused(str(refusal), refusal.status) from refusal

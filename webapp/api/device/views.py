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
from rest_framework.throttling import AnonRateThrottle

from webapp.api.device import presence, work
from webapp.api.device.device_tokens import (
    DeviceThrottle,
    DeviceTokenAuthentication,
    IsDevice,
)
from webapp.api.device.serializers import (
    BootSerializer,
    EnrolSerializer,
    FailSerializer,
    HelloSerializer,
    MeasurementBatchSerializer,
    ProgressSerializer,
    RefuseSerializer,
    ReportSerializer,
)
from webapp.api.parsers import StrictJSONParser
from webapp.devices import broker_users, device_messages
from webapp.devices.models import Device
from webapp.devices.signing import public_key
from webapp.jobs.artefacts.store import ArtefactRefused
from webapp.jobs.lifecycle import enrolment
from webapp.jobs.lifecycle.transitions import AssignmentRefused


class CallRefused(exceptions.APIException):
    """A problem with a status and a reason."""

    def __init__(self, detail: str, status: int) -> None:
        self.status_code = status
        super().__init__(detail)


class EnrolThrottle(AnonRateThrottle):
    scope = "enrol"


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


def _read(kind: type[Serializer[Any]], request: Request) -> dict[str, Any]:
    serializer = kind(data=request.data)
    serializer.is_valid(raise_exception=True)
    values: dict[str, Any] = serializer.validated_data
    return values


def _device(request: Request) -> Device:
    assert isinstance(request.auth, Device)
    return request.auth


@extend_schema(tags=["device"], request=EnrolSerializer, responses={201: OpenApiTypes.OBJECT})
@api_view(["POST"])
@authentication_classes([])
@permission_classes([])
@throttle_classes([EnrolThrottle])
@parser_classes([StrictJSONParser])
def enrol(request: Request) -> Response:
    """Exchange a one-time token for this device's credential."""
    values = _read(EnrolSerializer, request)
    try:
        admission = enrolment.enrol(**values)
    except enrolment.EnrolmentRefused as refusal:
        raise CallRefused(str(refusal), refusal.status) from refusal
    device = admission.device
    answer = {
        "device": {"id": device.pk, "name": device.name, "role": device.role},
        "api_token": admission.api_token,
        "broker": {
            "url": admission.broker_url,
            "key_prefix": broker_users.key_prefix(device.pk),
            "queue": device_messages.WORK_QUEUE,
        },
        "signing_public_key": public_key(),
    }
    return Response(answer, status=201)


@device_call(["POST"], HelloSerializer)
def hello(request: Request) -> Response:
    """Announce the start of the agent. Assignments of its previous start expire."""
    return Response(presence.hello(_device(request), **_read(HelloSerializer, request)))


@device_call(["POST"], MeasurementBatchSerializer)
def measurements(request: Request) -> Response:
    """Send presence, activity and samples. The answer names assignments to cancel."""
    return Response(presence.measure(_device(request), _read(MeasurementBatchSerializer, request)))


@device_call(["POST"])
def unenrol(request: Request) -> Response:
    """Revoke this device: its credential and broker user are deleted."""
    enrolment.revoke(_device(request), None)
    return Response(status=204)


@device_call(["POST"], BootSerializer)
def accept(request: Request, pk: UUID) -> Response:
    """Accept an assignment that was offered to this device."""
    values = _read(BootSerializer, request)
    return Response(_guarded(work.accept, _device(request), pk, values["boot_id"]))


@device_call(["POST"], ProgressSerializer)
def progress(request: Request, pk: UUID) -> Response:
    """Report that training or uploading has begun."""
    values = _read(ProgressSerializer, request)
    return Response(_guarded(work.progress, _device(request), pk, values["phase"]))


@device_call(["POST"], ReportSerializer)
def report(request: Request, pk: UUID) -> Response:
    """Report the result of an assignment."""
    return Response(_guarded(work.report, _device(request), pk, _read(ReportSerializer, request)))


@device_call(["POST"], FailSerializer)
def fail(request: Request, pk: UUID) -> Response:
    """Report that an assignment failed, and whether another attempt may help."""
    values = _read(FailSerializer, request)
    reason, step = values["reason"], values["step"]
    if step is not None and "step" not in reason:
        reason = f"{reason} (at step {step})"
    return Response(_guarded(work.fail, _device(request), pk, reason, values["retryable"]))


@device_call(["POST"], RefuseSerializer)
def refuse(request: Request, pk: UUID) -> Response:
    """Refuse an assignment that this device can never do."""
    values = _read(RefuseSerializer, request)
    return Response(_guarded(work.refuse, _device(request), pk, values["reason"]))


@device_call(["GET"])
def artefact(request: Request, sha256: str) -> HttpResponseBase:
    """Download an artefact that one of this device's open assignments needs."""
    response: HttpResponseBase = _guarded(work.download, request._request, _device(request), sha256)
    return response


def _guarded(call: Any, *args: Any) -> Any:
    try:
        return call(*args)
    except AssignmentRefused as refusal:
        raise CallRefused(str(refusal), 409) from refusal
    except ArtefactRefused as refusal:
        raise CallRefused(str(refusal), refusal.status) from refusal

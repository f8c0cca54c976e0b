"""Authentication, permission and throttle of device calls.

A device token gives access to the calls of this package, for its own device only.
"""

from __future__ import annotations

import math
import time
from typing import Any, ClassVar

from django.contrib.auth.models import AnonymousUser
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from webapp.devices.models import Credential, Device, hashed

SCHEME = "Device"


class DeviceTokenAuthentication(BaseAuthentication):
    """``Authorization: Device <token>``; ``request.auth`` is then the Device."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, Device] | None:
        parts = get_authorization_header(request).split()
        if len(parts) != 2 or parts[0].decode("latin-1") != SCHEME:
            return None
        device = device_of(parts[1].decode("latin-1"))
        if device is None:
            raise AuthenticationFailed("this device's credential was revoked; enrol it again")
        return AnonymousUser(), device

    def authenticate_header(self, request: Request) -> str:
        return SCHEME


def device_of(token: str) -> Device | None:
    """The device of a token; None if it is unknown or revoked."""
    rows = Credential.objects.select_related("device")
    credential = rows.filter(token_hash=hashed(token)).first()
    return credential.device if credential and credential.device.revoked_at is None else None


class IsDevice(BasePermission):
    message = "give the token of an enrolled device"

    def has_permission(self, request: Request, view: APIView) -> bool:
        return isinstance(request.auth, Device)


class DeviceThrottle(SimpleRateThrottle):
    """A token bucket per device, so that a faulty device does not slow the others.

    Each web process counts in its own memory. A shared count would cost each call two round trips
    to Redis, a quarter of its time.
    """

    scope = "device"
    # Device -> (tokens, when they were counted); one entry per device.
    buckets: ClassVar[dict[int, tuple[float, float]]] = {}

    def __init__(self) -> None:
        super().__init__()
        calls, seconds = self.parse_rate(self.rate)
        self._size = float(calls or math.inf)
        self._per_s = self._size / (seconds or 1)

    def allow_request(self, request: Request, view: APIView) -> bool:
        device = request.auth
        if not isinstance(device, Device):
            return True
        now = time.monotonic()
        tokens, counted_at = self.buckets.get(device.pk, (self._size, now))
        tokens = min(self._size, tokens + (now - counted_at) * self._per_s) - 1
        if tokens < 0:
            return False
        self.buckets[device.pk] = (tokens, now)
        return True

    def wait(self) -> float | None:
        return 1 / self._per_s


class DeviceTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "webapp.api.device.device_tokens.DeviceTokenAuthentication"
    name = "deviceToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": f"`{SCHEME} <token>`; a device gets its token at enrolment",
        }

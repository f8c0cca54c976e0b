"""Device tokens: they open the calls of this package for their own device, and nothing else."""

from __future__ import annotations

from typing import Any

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
        digest = hashed(parts[1].decode("latin-1"))
        found = Credential.objects.select_related("device").filter(token_hash=digest).first()
        if found is None or found.device.revoked_at is not None:
            raise AuthenticationFailed("this device's credential was revoked; enrol it again")
        return AnonymousUser(), found.device

    def authenticate_header(self, request: Request) -> str:
        return SCHEME


class IsDevice(BasePermission):
    message = "give the token of an enrolled device"

    def has_permission(self, request: Request, view: APIView) -> bool:
        return isinstance(request.auth, Device)


class DeviceThrottle(SimpleRateThrottle):
    """Counts per device, so that one that runs wild does not slow the others."""

    scope = "device"

    def get_cache_key(self, request: Request, view: APIView) -> str | None:
        if not isinstance(request.auth, Device):
            return None
        return self.cache_format % {"scope": self.scope, "ident": request.auth.pk}


class DeviceTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "webapp.api.device.authentication.DeviceTokenAuthentication"
    name = "deviceToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": f"`{SCHEME} <token>`, given to a device at its enrolment",
        }

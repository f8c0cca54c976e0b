"""Uploads of updates: raw bytes in, streamed to disk, checked, stored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from uuid import UUID

from django.http import HttpRequest
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from webapp.api.device import work
from webapp.api.device.authentication import (
    DeviceThrottle,
    DeviceTokenAuthentication,
    IsDevice,
)
from webapp.api.device.views import Refused, _device, _guarded

CHUNK = 2**20


class RawParser(BaseParser):
    """Leaves the body where it is; the view reads it piece by piece."""

    media_type = "*/*"

    def parse(self, stream, media_type=None, parser_context=None):  # type: ignore[no-untyped-def]
        return None


class UpdateView(APIView):
    """PUT the frame of an update with X-Content-SHA256."""

    authentication_classes = [DeviceTokenAuthentication]
    permission_classes = [IsDevice]
    throttle_classes = [DeviceThrottle]
    parser_classes = [RawParser]

    @extend_schema(
        tags=["device"],
        request={"application/octet-stream": OpenApiTypes.BINARY},
        responses={201: OpenApiTypes.OBJECT},
        parameters=[
            OpenApiParameter("X-Content-SHA256", str, OpenApiParameter.HEADER, required=True)
        ],
    )
    def put(self, request: Request, pk: UUID) -> Response:
        """Store the update of an assignment; the frame's header is checked at once."""
        sha256 = request.headers.get("X-Content-SHA256", "")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise Refused("give the SHA-256 of the bytes in the header X-Content-SHA256", 422)
        stored = _guarded(
            work.store_update, _device(request), pk, _chunks(request._request), sha256
        )
        return Response({"sha256": stored.sha256, "size_bytes": stored.size_bytes}, status=201)


def _chunks(request: HttpRequest) -> Iterator[bytes]:
    while chunk := request.read(CHUNK):
        yield chunk

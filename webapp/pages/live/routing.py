"""Every WebSocket address."""

from __future__ import annotations

from django.urls import URLPattern, path

from webapp.pages.live.consumers import FollowDevice, FollowFleet, FollowJob

websocket_urlpatterns: list[URLPattern] = [
    path("ws/jobs/<uuid:job_id>/", FollowJob.as_asgi()),  # type: ignore[arg-type]
    path("ws/devices/<int:device_id>/", FollowDevice.as_asgi()),  # type: ignore[arg-type]
    path("ws/fleet/", FollowFleet.as_asgi()),  # type: ignore[arg-type]
]

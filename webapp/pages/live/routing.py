"""WebSocket routes."""

from __future__ import annotations

from django.urls import URLPattern, path

from webapp.pages.live.consumers import DeviceConsumer, FleetConsumer, JobConsumer

websocket_urlpatterns: list[URLPattern] = [
    path("ws/jobs/<uuid:job_id>/", JobConsumer.as_asgi()),  # type: ignore[arg-type]
    path("ws/devices/<int:device_id>/", DeviceConsumer.as_asgi()),  # type: ignore[arg-type]
    path("ws/fleet/", FleetConsumer.as_asgi()),  # type: ignore[arg-type]
]

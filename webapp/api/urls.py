"""Every address under /api/. The device-token API stands in ``webapp.api.device``."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path, re_path

from webapp.api import problems

urlpatterns: list[URLPattern | URLResolver] = [
    path("v1/", include("webapp.api.device.urls")),
    re_path(r"^(?P<rest>.*)/$", problems.not_found),
]

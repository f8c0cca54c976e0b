"""The OpenAPI document and its Swagger page, under the site's strict content security policy."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import ensure_csrf_cookie
from drf_spectacular.views import SpectacularAPIView

from webapp.api.role_permission import RolePermission
from webapp.api.schema import SETTINGS

schema = SpectacularAPIView.as_view(permission_classes=[RolePermission], custom_settings=SETTINGS)


@ensure_csrf_cookie
def docs(request: HttpRequest) -> HttpResponse:
    """Swagger UI from the site's static files; calls are made as the logged-in person."""
    return render(request, "api/docs.html")

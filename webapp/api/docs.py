"""The OpenAPI document and a page to try it on, under the site's strict content policy."""

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
    """Swagger UI from this site's own static files; it acts as the person who looks at it."""
    return render(request, "api/docs.html")

"""Every address of the site."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("webapp.api.urls")),
    path("", include("webapp.accounts.urls")),
    path("", include("webapp.pages.devices.urls")),
    path("", include("webapp.pages.jobs.urls")),
]

"""Every address of the site."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

handler500 = "webapp.pages.errors.server_error"
urlpatterns = [
    # One page that changes a password, with its limits.
    path("admin/password_change/", RedirectView.as_view(pattern_name="profile")),
    path("admin/", admin.site.urls),
    path("api/", include("webapp.api.urls")),
    path("", include("webapp.accounts.urls")),
    path("", include("webapp.pages.devices.urls")),
    path("", include("webapp.pages.jobs.urls")),
]

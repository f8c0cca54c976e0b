"""URLs of the device API, below /api/v1/."""

from __future__ import annotations

from django.urls import path

from webapp.api.device import views

ASSIGNMENT = "device/assignments/<uuid:pk>"

urlpatterns = [
    path("enrol/", views.enrol),
    path("device/unenrol/", views.unenrol),
    path("device/artefacts/<str:sha256>/", views.artefact),
    path(f"{ASSIGNMENT}/", views.assignment),
    # Agents from before the line call these.
    path("device/hello/", views.outdated),
    path("device/measurements/", views.outdated),
    path(f"{ASSIGNMENT}/<str:verb>/", views.outdated),
]

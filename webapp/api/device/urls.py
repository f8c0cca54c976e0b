"""URLs of the device API, below /api/v1/."""

from __future__ import annotations

from django.urls import path

from webapp.api.device import views

ASSIGNMENT = "device/assignments/<uuid:pk>"

urlpatterns = [
    path("enrol/", views.enrol),
    path("device/hello/", views.hello),
    path("device/measurements/", views.measurements),
    path("device/unenrol/", views.unenrol),
    path("device/artefacts/<str:sha256>/", views.artefact),
    path(f"{ASSIGNMENT}/accept/", views.accept),
    path(f"{ASSIGNMENT}/progress/", views.progress),
    path(f"{ASSIGNMENT}/report/", views.report),
    path(f"{ASSIGNMENT}/fail/", views.fail),
    path(f"{ASSIGNMENT}/refuse/", views.refuse),
]

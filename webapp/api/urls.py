"""URLs below /api/. Those of the device API are in ``webapp.api.device.urls``."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path, re_path
from rest_framework.routers import SimpleRouter

from webapp.api import docs, problems
from webapp.api.resources.artefacts import Artefacts
from webapp.api.resources.devices import Devices
from webapp.api.resources.downloads import Downloads
from webapp.api.resources.enrolments import Enrolments
from webapp.api.resources.estimates import Estimates
from webapp.api.resources.events import Events
from webapp.api.resources.jobs import Jobs
from webapp.api.resources.measurements import Measurements
from webapp.api.resources.person_tokens import Tokens
from webapp.api.resources.plans import Plans
from webapp.api.resources.rounds import Assignments, Rounds
from webapp.api.resources.users import Me, Users

router = SimpleRouter(use_regex_path=False)
router.register("devices", Devices, basename="api-device")
router.register("enrolments", Enrolments, basename="api-enrolment")
router.register("jobs", Jobs, basename="api-job")
router.register("rounds", Rounds, basename="api-round")
router.register("assignments", Assignments, basename="api-assignment")
router.register("artefacts", Artefacts, basename="api-artefact")
router.register("events", Events, basename="api-event")
router.register("measurements", Measurements, basename="api-measurement")
router.register("tokens", Tokens, basename="api-token")
router.register("users", Users, basename="api-user")

v1: list[URLPattern | URLResolver] = [
    path("", include("webapp.api.device.urls")),
    path("jobs/estimate/", Estimates.as_view({"post": "create"}), name="api-job-estimate"),
    path("plan/", Plans.as_view({"post": "create"}), name="api-plan"),
    path("", include(router.urls)),
    path(
        "jobs/<uuid:pk>/download/adapter/",
        Downloads.as_view({"get": "adapter"}),
        name="api-job-adapter",
    ),
    path(
        "jobs/<uuid:pk>/download/merged/",
        Downloads.as_view({"get": "merged"}),
        name="api-job-merged",
    ),
    path("me/", Me.as_view({"get": "retrieve", "patch": "partial_update"}), name="api-me"),
    path("me/password/", Me.as_view({"post": "password"}), name="api-me-password"),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("schema/", docs.schema, name="schema"),
    path("docs/", docs.docs, name="api-docs"),
    path("v1/", include(v1)),
    re_path(r"^(?P<rest>.*)/$", problems.not_found),
]

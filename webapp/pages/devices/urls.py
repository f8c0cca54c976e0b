from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from webapp.pages.devices import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("devices/", views.device_list, name="devices"),
    path("devices/compare/", views.device_compare, name="devices-compare"),
    path("devices/enrol/", views.enrol, name="enrol"),
    path("devices/enrol/<int:enrolment_id>/", views.enrolment_state, name="enrolment"),
    path("devices/revoke/", views.revoke_many, name="devices-revoke"),
    path("devices/<int:device_id>/", views.device_page, name="device"),
    path("devices/<int:device_id>/revoke/", views.device_revoke, name="device-revoke"),
]

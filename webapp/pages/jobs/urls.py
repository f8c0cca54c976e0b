from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from webapp.pages.jobs import local_baseline_views, report_views, views

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.overview, name="overview"),
    path("jobs/", views.job_list, name="jobs"),
    path("jobs/new/", views.job_new, name="job-new"),
    path("jobs/estimate/", views.job_estimate, name="job-estimate"),
    path("jobs/<uuid:job_id>/", views.job_page, name="job"),
    path("jobs/<uuid:job_id>/report/", report_views.job_report, name="job-report"),
    path("jobs/<uuid:job_id>/alone/", local_baseline_views.job_alone, name="job-alone"),
    path("jobs/<uuid:job_id>/clusters/", views.job_clusters, name="job-clusters"),
    path("jobs/<uuid:job_id>/delete/", views.job_delete, name="job-delete"),
    path("rounds/<int:round_id>/<slug:name>/", views.round_pin, name="round-pin"),
    path("jobs/<uuid:job_id>/<slug:name>/", views.job_move, name="job-move"),
]

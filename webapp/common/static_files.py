"""Static files of installed packages that the site does not need."""

from __future__ import annotations

from django.contrib.staticfiles.apps import StaticFilesConfig


class StaticFiles(StaticFilesConfig):
    """Excludes Redoc and the pages of Django REST framework: the API is shown with Swagger."""

    ignore_patterns = [*StaticFilesConfig.ignore_patterns, "redoc", "rest_framework"]

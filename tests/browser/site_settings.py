"""The site's settings with static files served uncompressed."""

from __future__ import annotations

from webapp.settings import *  # noqa: F403
from webapp.settings import STORAGES

STORAGES = {
    **STORAGES,
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = True

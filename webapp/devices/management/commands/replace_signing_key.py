"""``manage.py replace_signing_key``: sign with a new key from now on."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from webapp.devices.key_file import key_file, replace_key

LATER = (
    "Devices learn of it at their next message or connection. Make a backup now: a site that is "
    "restored from an older one has the old key, which devices will no longer believe."
)


class Command(BaseCommand):
    help = "Replace the key that signs work and verdicts; the old key vouches for the new one."

    def handle(self, *args: Any, **options: Any) -> None:
        path = settings.SIGNING_KEY_FILE
        key_file(path)  # a new site has none yet
        replace_key(path)
        self.stdout.write(f"{path} has a new key. {LATER}")

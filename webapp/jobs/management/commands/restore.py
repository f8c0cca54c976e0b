"""``manage.py restore DIR``: restore a backup into an empty site."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from webapp.jobs.artefacts.site_backup import BackupRefused, restore, settle


class Command(BaseCommand):
    help = (
        "Restore a backup into this site, whose database must be empty. Jobs continue from there."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="folder that `manage.py backup` wrote")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            manifest = restore(options["folder"].resolve())
            call_command("migrate", verbosity=0)
            count = settle(manifest)
        except BackupRefused as refused:
            raise CommandError(str(refused)) from refused
        self.stdout.write(f"restored the site of {manifest.made_at} with {count} artefacts")

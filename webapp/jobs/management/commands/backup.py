"""``manage.py backup DIR``: back up a running site."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp.jobs.artefacts.site_backup import BackupRefused, backup


class Command(BaseCommand):
    help = "Back up the database, the artefacts and the signing key of a running site to a folder."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "folder", type=Path, help="new folder; it appears when the backup is complete"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            manifest = backup(options["folder"].resolve())
        except BackupRefused as refused:
            raise CommandError(str(refused)) from refused
        key = "the database and the signing key" if manifest.signing_key else "the database"
        self.stdout.write(f"saved {manifest.artefacts} artefacts ({manifest.bytes:,} bytes), {key}")
        self.stdout.write(f"not in the backup, keep these apart: {'; '.join(manifest.kept_apart)}")

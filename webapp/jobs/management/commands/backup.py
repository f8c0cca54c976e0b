"""``manage.py backup DIR``: a running site into one folder."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp.jobs.artefacts.site_backup import BackupRefused, backup


class Command(BaseCommand):
    help = "Write the database, the artefacts and the signing key of a running site into a folder."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="appears once the backup is whole")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            made = backup(options["folder"].resolve())
        except BackupRefused as refused:
            raise CommandError(str(refused)) from refused
        self.stdout.write(f"{made.artefacts} artefacts, {made.bytes:,} bytes, and the database")
        self.stdout.write(f"keep apart, for it is not in there: {'; '.join(made.kept_apart)}")

"""Create an API token on the command line, for scripts on the server itself."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp.accounts.models import User, create_token


class Command(BaseCommand):
    help = "Create an API token for a user and print it; it won't be shown again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--label", default="made on the command line")

    def handle(self, *_: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"], is_active=True).first()
        if user is None:
            raise CommandError(
                f"no active user is called {options['username']}; see manage.py ensure_admin"
            )
        _row, secret = create_token(user, options["label"])
        self.stdout.write(secret)

"""Create the first admin, or give an existing one a new password."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp.accounts.models import Role, User


class Command(BaseCommand):
    """The password is read from EDGEWISE_ADMIN_PASSWORD: an argument would show in ``ps``."""

    help = "Create an admin, or set its password, from EDGEWISE_ADMIN_PASSWORD."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--username", default="admin")

    def handle(self, *_args: Any, **options: Any) -> None:
        password = os.environ.get("EDGEWISE_ADMIN_PASSWORD", "")
        if len(password) < 12:
            raise CommandError("set EDGEWISE_ADMIN_PASSWORD to at least 12 characters")
        user, created = User.objects.get_or_create(username=options["username"])
        user.role, user.is_staff, user.is_superuser = Role.ADMIN, True, True
        user.set_password(password)
        user.save()
        self.stdout.write(f"{user.username} {'created' if created else 'has a new password'}")

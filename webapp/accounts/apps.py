from __future__ import annotations

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "webapp.accounts"

    def ready(self) -> None:
        """Registers the checks."""
        from webapp.accounts import checks  # noqa: F401

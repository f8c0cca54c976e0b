"""The first authentication backend: it knows nobody, and limits attempts by address."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from webapp.common.address_limits import PASSWORD_LIMIT


class PasswordLimitBackend:
    """Covers every log-in by password: page, admin, and whatever calls ``authenticate``."""

    def authenticate(self, request: HttpRequest | None, **credentials: Any) -> None:
        """Raises TooManyRequests. Without a request (a command, a shell) nothing is counted."""
        if request is not None and "password" in credentials:
            PASSWORD_LIMIT.take(request)

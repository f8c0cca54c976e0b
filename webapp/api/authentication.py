"""Authentication of people's scripts: ``Authorization: Token <token>``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone
from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from webapp.accounts.models import PersonToken

USE_INTERVAL = timedelta(minutes=1)


class PersonTokenAuthentication(TokenAuthentication):  # type: ignore[misc]
    """A person's token. A request with another scheme, such as a device's, stays anonymous."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        credentials: tuple[Any, Any] | None = super().authenticate(request)
        if credentials is not None:
            note_use(credentials[1].pk)
        return credentials

    def authenticate_credentials(self, token: bytes) -> tuple[Any, Any]:
        """Tokens are hexadecimal; anything else never reaches the database."""
        if not token.isalnum() or not token.isascii():
            raise AuthenticationFailed("this token is unknown or was revoked; create a new one")
        credentials: tuple[Any, Any] = super().authenticate_credentials(token)
        return credentials


def note_use(digest: str) -> None:
    """Store when a token was used, at most once a minute, in one UPDATE."""
    now = timezone.now()
    stale = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - USE_INTERVAL)
    PersonToken.objects.filter(stale, pk=digest).update(last_used_at=now)

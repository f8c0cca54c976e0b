"""How a script shows who it acts for: ``Authorization: Token <token>``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone
from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from webapp.accounts.models import PersonToken

USED_EVERY = timedelta(minutes=1)


class PersonTokenAuthentication(TokenAuthentication):  # type: ignore[misc]
    """A person's token. Any other scheme, a device's too, is not looked at and stays anonymous."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        found: tuple[Any, Any] | None = super().authenticate(request)
        if found is not None:
            note_use(found[1].pk)
        return found

    def authenticate_credentials(self, token: bytes) -> tuple[Any, Any]:
        """Tokens are hexadecimal; anything else never reaches the database."""
        if not token.isalnum() or not token.isascii():
            raise AuthenticationFailed("this token is unknown or was revoked; create a new one")
        found: tuple[Any, Any] = super().authenticate_credentials(token)
        return found


def note_use(digest: str) -> None:
    """Remember that a token was used, at most once a minute, in one UPDATE."""
    now = timezone.now()
    stale = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - USED_EVERY)
    PersonToken.objects.filter(stale, pk=digest).update(last_used_at=now)

"""API tokens of people: shown once, kept as a hash, named, revocable alone."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet

from webapp.accounts.models import PersonToken, User


def create_token(user: User, label: str) -> tuple[PersonToken, str]:
    """A new token and its secret, which nobody can read again."""
    token, secret = PersonToken.objects.create(user=user, label=label)
    return token, secret


def tokens_of(user: User) -> QuerySet[PersonToken]:
    """A person's tokens, newest first: ``public_id, label, created, last_used_at``."""
    rows: QuerySet[PersonToken] = PersonToken.objects.filter(user=user)
    return rows


def revoke_token(user: User, public_id: UUID) -> bool:
    """Revoke one of this person's tokens; False where they have none with that id."""
    deleted, _ = tokens_of(user).filter(public_id=public_id).delete()
    return deleted > 0

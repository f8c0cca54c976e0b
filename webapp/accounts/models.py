"""Users, their roles and their API tokens."""

from __future__ import annotations

from uuid import UUID, uuid4

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import QuerySet
from knox.models import AbstractAuthToken


class Role(models.TextChoices):
    """Each role includes the rights of the one before it."""

    VIEWER = "viewer", "viewer"
    OPERATOR = "operator", "operator"
    ADMIN = "admin", "admin"


RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


class User(AbstractUser):  # type: ignore[django-manager-missing]  # knox is untyped
    """A user. Superusers are admins whatever their role."""

    role = models.CharField(max_length=10, choices=Role.choices, default=Role.VIEWER)

    def at_least(self, role: Role) -> bool:
        """Whether this user has the rights of ``role``."""
        return self.is_active and (self.is_superuser or RANK[Role(self.role)] >= RANK[role])


class PersonToken(AbstractAuthToken):  # type: ignore[misc]
    """A user's API token, with a label of their choice. Only its hash is stored."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="auth_token_set")
    # For URLs and pages: the primary key is the hash.
    public_id = models.UUIDField(unique=True, default=uuid4, editable=False)
    label = models.CharField(max_length=100)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return self.label


def create_token(user: User, label: str) -> tuple[PersonToken, str]:
    """Create a token; returns it with its secret, which cannot be read again."""
    token, secret = PersonToken.objects.create(user=user, label=label)
    return token, secret


def tokens_of(user: User) -> QuerySet[PersonToken]:
    """A user's tokens, newest first."""
    rows: QuerySet[PersonToken] = PersonToken.objects.filter(user=user)
    return rows


def revoke_token(user: User, public_id: UUID) -> bool:
    """Revoke one of this user's tokens; False if they have none with that id."""
    deleted, _ = tokens_of(user).filter(public_id=public_id).delete()
    return deleted > 0

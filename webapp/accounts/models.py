"""People and what they may do."""

from __future__ import annotations

import uuid

from django.contrib.auth.models import AbstractUser
from django.db import models
from knox.models import AbstractAuthToken


class Role(models.TextChoices):
    """Each role may do what the one before it may."""

    VIEWER = "viewer", "viewer"
    OPERATOR = "operator", "operator"
    ADMIN = "admin", "admin"


RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


class User(AbstractUser):  # type: ignore[django-manager-missing]  # knox is untyped
    """A person. Superusers are admins whatever their role says."""

    role = models.CharField(max_length=10, choices=Role.choices, default=Role.VIEWER)

    def at_least(self, role: Role) -> bool:
        """Whether this person may do what ``role`` may."""
        return self.is_active and (self.is_superuser or RANK[Role(self.role)] >= RANK[role])


class PersonToken(AbstractAuthToken):  # type: ignore[misc]
    """An API token of a person, named by them. Only its hash is stored; see ``tokens``."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="auth_token_set")
    # What addresses and pages call it: the primary key is the hash.
    public_id = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    label = models.CharField(max_length=100)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return self.label

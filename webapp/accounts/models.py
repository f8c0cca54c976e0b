"""People and what they may do."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models


class Role(models.TextChoices):
    """Each role may do what the one before it may."""

    VIEWER = "viewer", "viewer"
    OPERATOR = "operator", "operator"
    ADMIN = "admin", "admin"


RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


class User(AbstractUser):
    """A person. Superusers are admins whatever their role says."""

    role = models.CharField(max_length=10, choices=Role.choices, default=Role.VIEWER)

    def at_least(self, role: Role) -> bool:
        """Whether this person may do what ``role`` may."""
        return self.is_active and (self.is_superuser or RANK[Role(self.role)] >= RANK[role])

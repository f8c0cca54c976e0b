"""Fetching an object and checking the right to it in one act, so the check cannot be forgotten."""

from __future__ import annotations

from typing import Any, TypeVar

from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest

from webapp.accounts.models import Role, User
from webapp.accounts.permissions import may, refusal

M = TypeVar("M", bound=Model)


def found(request: HttpRequest, rows: QuerySet[M], role: Role = Role.VIEWER, **lookup: Any) -> M:
    """The one row that matches, for people who hold at least ``role``; else 403 or 404."""
    if not may(request.user, role):
        raise PermissionDenied(refusal(role))
    row = rows.filter(**lookup).first()
    if row is None:
        kind = rows.model._meta.verbose_name
        raise Http404(f"there is no such {kind}; it may have been removed")
    return row


def person(request: HttpRequest) -> User:
    """The person who is logged in."""
    if not isinstance(request.user, User):
        raise PermissionDenied("log in first")
    return request.user

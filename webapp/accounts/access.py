"""Roles: who may do what, and fetching an object together with the check of the right to it.

The REST framework's permission classes are in ``webapp.api.role_permission``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase

from webapp.accounts.models import Role, User

M = TypeVar("M", bound=Model)
P = ParamSpec("P")
R = TypeVar("R", bound=HttpResponseBase)
View = Callable[Concatenate[HttpRequest, P], R]

# The role each action needs; pages, admin and REST read the same table.
CREATE_JOB = MOVE_JOB = PIN_MODEL = ENROL = EDIT_DEVICE = Role.OPERATOR
DELETE_JOB = REVOKE_DEVICE = MANAGE_USERS = MANAGE_TOKENS_OF_OTHERS = READ_UPDATES = Role.ADMIN


def may(user: User | AnonymousUser, role: Role) -> bool:
    """Whether this user is logged in and has at least ``role``."""
    return isinstance(user, User) and user.is_authenticated and user.at_least(role)


def refusal(role: Role) -> str:
    """The message for a user who lacks ``role``."""
    return f"this needs the role {role.value}; ask an admin of this site for it"


def require(role: Role) -> Callable[[View[P, R]], View[P, R]]:
    """Answer 403 to users below ``role``; the login is checked by middleware before."""

    def decorate(view: View[P, R]) -> View[P, R]:
        @wraps(view)
        def checked(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> R:
            if not may(request.user, role):
                raise PermissionDenied(refusal(role))
            return view(request, *args, **kwargs)

        return checked

    return decorate


def get_permitted_or_404(
    request: HttpRequest, rows: QuerySet[M], role: Role = Role.VIEWER, **lookup: Any
) -> M:
    """The one row that matches, for users with at least ``role``; otherwise 403 or 404."""
    if not may(request.user, role):
        raise PermissionDenied(refusal(role))
    row = rows.filter(**lookup).first()
    if row is None:
        kind = rows.model._meta.verbose_name
        raise Http404(f"there is no such {kind}; it may have been removed")
    return row


def current_user(request: HttpRequest) -> User:
    """The user who is logged in."""
    if not isinstance(request.user, User):
        raise PermissionDenied("log in first")
    return request.user

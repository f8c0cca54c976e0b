"""Who may do what: one decorator for pages. The REST API's twin is ``webapp.api.permissions``."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase

from webapp.accounts.models import Role, User

P = ParamSpec("P")
R = TypeVar("R", bound=HttpResponseBase)
View = Callable[Concatenate[HttpRequest, P], R]

# What needs more than being logged in; pages, admin and REST read the same table.
CREATE_JOB = MOVE_JOB = PIN_MODEL = ENROL = EDIT_DEVICE = Role.OPERATOR
DELETE_JOB = REVOKE_DEVICE = MANAGE_USERS = MANAGE_TOKENS_OF_OTHERS = READ_UPDATES = Role.ADMIN


def may(user: User | AnonymousUser, role: Role) -> bool:
    """Whether this person is logged in and holds at least ``role``."""
    return isinstance(user, User) and user.is_authenticated and user.at_least(role)


def refusal(role: Role) -> str:
    """What a person reads who lacks ``role``."""
    return f"this needs the role {role.value}; ask an admin of this site for it"


def require(role: Role) -> Callable[[View[P, R]], View[P, R]]:
    """Refuse a page with 403 to people below ``role``; logging in is checked before."""

    def decorate(view: View[P, R]) -> View[P, R]:
        @wraps(view)
        def checked(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> R:
            if not may(request.user, role):
                raise PermissionDenied(refusal(role))
            return view(request, *args, **kwargs)

        return checked

    return decorate

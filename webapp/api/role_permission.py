"""The one permission class of the REST API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from webapp.accounts.access import may, refusal
from webapp.accounts.models import Role

if TYPE_CHECKING:  # the framework's views import this module
    from rest_framework.views import APIView


def role_needed(view: Any, method: str) -> Role:
    """The role for a call: ``view.roles[action]``, else viewer to read and operator to change.

    ``action`` is a viewset's action, or the lower-case HTTP method of a plain view.
    """
    roles: dict[str, Role] = getattr(view, "roles", {})
    action = getattr(view, "action", None) or method.lower()
    if action in roles:
        return roles[action]
    return Role.VIEWER if method in SAFE_METHODS else Role.OPERATOR


class RolePermission(BasePermission):
    """Refuses anonymous requests, and people below the role that the action needs."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        role = role_needed(view, request.method or "GET")
        self.message = refusal(role)
        return may(request.user, role)

"""Template filter that hides what a role may not do; the views check again."""

from __future__ import annotations

from django import template
from django.contrib.auth.models import AnonymousUser

from webapp.accounts import access
from webapp.accounts.models import Role, User

register = template.Library()


@register.filter
def may(user: User | AnonymousUser, role: str) -> bool:
    """``{% if user|may:"operator" %}``"""
    return access.may(user, Role(role))

"""The page for status 429: why, and when to try again. REST answers with a problem document."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from axes.helpers import get_cool_off
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin

from webapp.common.address_limits import TooManyRequests


class TooManyRequestsMiddleware(MiddlewareMixin):
    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        return too_many(request, error) if isinstance(error, TooManyRequests) else None


def too_many(request: HttpRequest, error: TooManyRequests) -> HttpResponse:
    context = {
        "reason": error.reason,
        "wait": error.wait,
        "again_at": timezone.now() + timedelta(seconds=error.wait),
    }
    response = render(request, "429.html", context, status=error.status)
    response["Retry-After"] = str(error.wait)
    response["Cache-Control"] = "no-store"
    return response


def locked_out(request: HttpRequest, *_: Any) -> HttpResponse:
    """django-axes' answer: one user name failed too often from one address."""
    wait = get_cool_off(request) or timedelta(0)
    reason = f"login for this user failed {settings.AXES_FAILURE_LIMIT} times from this address"
    return too_many(request, TooManyRequests(reason, wait.total_seconds()))

"""Calls per person; without a token, per client address."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.throttling import ScopedRateThrottle

from webapp.common.client_address import limit_address


class PeopleThrottle(ScopedRateThrottle):
    def get_ident(self, request: Request) -> str:
        return limit_address(request)

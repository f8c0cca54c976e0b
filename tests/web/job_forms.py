"""What a browser sends of the new-job form."""

from __future__ import annotations

from typing import Any

from django.http import QueryDict

from fedcore.spec.job import JobSpec, options


def form_data(**changes: Any) -> dict[str, Any]:
    """The fields of an unchanged form, with changes."""
    sent: dict[str, Any] = {}
    for info in options(JobSpec):
        if isinstance(info.default, bool):
            sent |= {info.path: "on"} if info.default else {}
            continue
        value = info.default
        sent[info.path] = list(value) if isinstance(value, tuple) else str(value)
    return sent | changes


def post(**changes: Any) -> QueryDict:
    query = QueryDict(mutable=True)
    for key, value in form_data(**changes).items():
        query.setlist(key, value if isinstance(value, list) else [value])
    return query

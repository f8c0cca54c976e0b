"""Base classes of the resources for people."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import django_filters
from django import forms
from django_filters.fields import IsoDateTimeField
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.viewsets import GenericViewSet

from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec
from webapp.accounts.models import Role, User
from webapp.api.parsers import StrictJSONParser


class Resource(GenericViewSet[Any]):
    """A viewset for people. ``roles``: the role of each action that differs from the default."""

    parser_classes = [StrictJSONParser]
    throttle_scope = "people"
    roles: dict[str, Role] = {}


def person(request: Request) -> User:
    """The caller. ``RolePermission`` has refused anonymous requests."""
    assert isinstance(request.user, User)
    return request.user


def read_spec(request: Request) -> JobSpec:
    """The body as a job specification. Raises SpecError: status 400 with all faults."""
    body: Any = request.data
    return parse_spec(body)


class AnyAccept(BaseContentNegotiation):
    """For downloads: ignores ``Accept``; problems are still JSON."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses unknown fields instead of ignoring them."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            known = {name for name, field in self.fields.items() if not field.read_only}
            unknown = [str(key) for key in data if key not in known]
            if unknown:
                text = f"unknown or read-only; known: {', '.join(sorted(known))}"
                raise serializers.ValidationError({key: [text] for key in unknown})
        return super().to_internal_value(data)


class WholeField(forms.IntegerField):
    """An integer that every database can store."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"min_value": -(2**63), "max_value": 2**63 - 1, **kwargs})


@extend_schema_field(OpenApiTypes.INT64)
class WholeFilter(django_filters.Filter):  # type: ignore[misc]
    """An id or count. Unlike NumberFilter, it refuses ``1e999999999`` quickly."""

    field_class = WholeField


class MomentField(IsoDateTimeField):  # type: ignore[misc]
    """ISO 8601 in years that every time zone and database can represent; converted to UTC.

    PostgreSQL refuses offsets of 16 hours and more, which ISO 8601 allows.
    """

    def clean(self, value: Any) -> Any:
        moment = super().clean(value)
        if not isinstance(moment, datetime):
            return moment
        if not 1970 < moment.year < 9000:
            raise forms.ValidationError("give a time from 1971 to 8999")
        return moment.astimezone(timezone.utc)


@extend_schema_field(OpenApiTypes.DATETIME)
class MomentFilter(django_filters.Filter):  # type: ignore[misc]
    field_class = MomentField

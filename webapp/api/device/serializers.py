"""Body of an enrolment. Devices are not trusted, so every field is bounded."""

from __future__ import annotations

import json
from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

MAX_OBJECT_BYTES = 20_000


class Text(serializers.CharField):
    """A text without NUL characters, which PostgreSQL refuses."""

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if "\x00" in value:
            raise serializers.ValidationError("has NUL characters; remove them")
        return value


class SmallObject(serializers.JSONField):
    """A JSON object of bounded size with finite numbers."""

    def to_internal_value(self, data: Any) -> Any:
        value = super().to_internal_value(data)
        if not isinstance(value, dict):
            raise serializers.ValidationError("give an object")
        try:
            encoded = json.dumps(value, allow_nan=False)
        except ValueError:
            raise serializers.ValidationError("has a number that is not finite") from None
        if len(encoded) > MAX_OBJECT_BYTES or "\\u0000" in encoded:
            raise serializers.ValidationError(f"is over {MAX_OBJECT_BYTES} bytes, or has a NUL")
        return value


@extend_schema_serializer(component_name="Dataset")
class ReportedDatasetSerializer(serializers.Serializer[Any]):
    name = Text(max_length=100)
    domain = Text(max_length=100, allow_blank=True, default="")
    examples = serializers.IntegerField(min_value=0, max_value=2**31 - 1)
    size_bytes = serializers.IntegerField(min_value=0, max_value=2**62, default=0)
    columns = serializers.ListField(child=Text(max_length=200), max_length=200, default=list)


class EnrolSerializer(serializers.Serializer[Any]):
    token = Text(max_length=200)
    name = Text(max_length=100, allow_blank=True, default="")
    agent_version = Text(max_length=40, allow_blank=True, default="")
    profile = SmallObject(default=dict)
    datasets = ReportedDatasetSerializer(many=True, default=list)

    def validate_datasets(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = [item["name"] for item in value]
        if len(set(names)) != len(names) or len(names) > 100:
            raise serializers.ValidationError("name each dataset once, at most 100 of them")
        return value

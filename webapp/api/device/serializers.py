"""Bodies of device calls. Devices are not trusted, so every field is bounded."""

from __future__ import annotations

import json
from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from webapp.common.metric_definitions import faults_of, report_faults

MAX_SAMPLES = 500
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


class _DeviceDescription(serializers.Serializer[Any]):
    agent_version = Text(max_length=40, allow_blank=True, default="")
    profile = SmallObject(default=dict)
    datasets = ReportedDatasetSerializer(many=True, default=list)

    def validate_datasets(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = [item["name"] for item in value]
        if len(set(names)) != len(names) or len(names) > 100:
            raise serializers.ValidationError("name each dataset once, at most 100 of them")
        return value


class EnrolSerializer(_DeviceDescription):
    token = Text(max_length=200)
    name = Text(max_length=100, allow_blank=True, default="")


class HelloSerializer(_DeviceDescription):
    boot_id = Text(max_length=64)


class BootSerializer(serializers.Serializer[Any]):
    boot_id = Text(max_length=64, allow_blank=True, default="")


class ProgressSerializer(serializers.Serializer[Any]):
    phase = serializers.ChoiceField(choices=["training", "uploading"])


class ReportSerializer(serializers.Serializer[Any]):
    update = serializers.RegexField(r"^[0-9a-f]{64}$", allow_null=True)  # type: ignore[assignment]
    examples = serializers.IntegerField(min_value=1, max_value=2**31 - 1)
    bytes_up = serializers.IntegerField(min_value=0, max_value=2**62, default=0)
    bytes_down = serializers.IntegerField(min_value=0, max_value=2**62, default=0)
    metrics = SmallObject(default=dict)

    def validate_metrics(self, value: dict[str, Any]) -> dict[str, Any]:
        faults = report_faults(value)
        if faults:
            raise serializers.ValidationError(faults)
        return value


class FailSerializer(serializers.Serializer[Any]):
    reason = Text(max_length=2000)
    retryable = serializers.BooleanField(default=False)
    step = serializers.IntegerField(min_value=0, max_value=2**31 - 1, allow_null=True, default=None)


class RefuseSerializer(serializers.Serializer[Any]):
    reason = Text(max_length=2000)


class ActivitySerializer(serializers.Serializer[Any]):
    assignment = serializers.UUIDField(allow_null=True, default=None)
    phase = Text(max_length=40, allow_blank=True, default="")
    step = serializers.IntegerField(min_value=0, max_value=2**31 - 1, default=0)
    steps_total = serializers.IntegerField(min_value=0, max_value=2**31 - 1, default=0)


@extend_schema_serializer(component_name="Sample")
class MeasuredSampleSerializer(serializers.Serializer[Any]):
    seq = serializers.IntegerField(min_value=1, max_value=2**62)
    at = serializers.DateTimeField()
    assignment = serializers.UUIDField(allow_null=True, default=None)
    values = SmallObject()

    def validate_values(self, value: dict[str, Any]) -> dict[str, Any]:
        faults = faults_of(value)
        if faults:
            raise serializers.ValidationError(faults)
        return value


@extend_schema_serializer(component_name="Measurements")
class MeasurementBatchSerializer(serializers.Serializer[Any]):
    boot_id = Text(max_length=64, allow_blank=True, default="")
    sent_at = serializers.DateTimeField(required=False)
    activity = ActivitySerializer(default=dict)
    samples = MeasuredSampleSerializer(many=True, default=list)

    def validate_samples(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len(value) > MAX_SAMPLES:
            raise serializers.ValidationError(f"send at most {MAX_SAMPLES} samples at once")
        return value

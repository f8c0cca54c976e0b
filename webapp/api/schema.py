"""Additions to the OpenAPI document that drf-spectacular makes from the views."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from drf_spectacular.extensions import OpenApiAuthenticationExtension

from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.types import AssignmentPhase, RoundPhase
from fedcore.spec.checks import check_of
from fedcore.spec.job import JobSpec

HOOKS = [
    "drf_spectacular.hooks.postprocess_schema_enums",
    "webapp.api.device.upload_doc.add_upload",
    "webapp.api.schema.add_problems",
]
JOB_PHASES = [(phase.value, phase.value) for phase in JobPhase]
ROUND_PHASES = [(phase.value, phase.value) for phase in RoundPhase]
ASSIGNMENT_PHASES = [(phase.value, phase.value) for phase in AssignmentPhase]
SETTINGS = {"POSTPROCESSING_HOOKS": HOOKS}
SPEC_REF = {"application/json": {"$ref": "#/components/schemas/JobSpec"}}
PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details; `faults` names single invalid inputs.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is wrong and what to do"},
        "faults": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["path", "message"],
                "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}


class PersonTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "webapp.api.authentication.PersonTokenAuthentication"
    name = "token"
    priority = 1

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        text = "Write `Token ` before the token: `Token 3f…`"
        return {"type": "apiKey", "in": "header", "name": "Authorization", "description": text}


def add_problems(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Postprocessing hook: adds problem responses to every call, and the JobSpec component."""
    components = result.setdefault("components", {}).setdefault("schemas", {})
    components["Problem"] = PROBLEM
    components["JobSpec"] = spec_schema()
    answer = {
        "description": "A problem",
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
    for operations in result["paths"].values():
        for operation in operations.values():
            if isinstance(operation, dict) and "responses" in operation:
                operation["responses"].setdefault("default", answer)
    return result


def spec_schema(kind: type = JobSpec) -> dict[str, Any]:
    """JSON schema of a job specification, from the declarations that validate it."""
    hints = get_type_hints(kind)
    properties: dict[str, Any] = {}
    for item in fields(kind):
        inner = hints[item.name]
        if is_dataclass(inner):
            properties[item.name] = spec_schema(inner)  # type: ignore[arg-type]
            continue
        check = check_of(item)
        schema: dict[str, Any] = {"type": "boolean" if check.kind == "truth" else "string"}
        if check.kind == "choice":
            schema["enum"] = list(check.choices or ())
        elif check.kind == "names":
            names: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 100}
            if check.choices:
                names = {"type": "string", "enum": list(check.choices)}
            schema = {"type": "array", "uniqueItems": True, "items": names}
        elif check.kind in ("whole", "real"):
            number = "integer" if check.kind == "whole" else "number"
            schema = {"type": number, "minimum": check.low, "maximum": check.high}
        properties[item.name] = schema | {
            "title": item.metadata["label"],
            "description": item.metadata["help"],
            "default": list(item.default) if isinstance(item.default, tuple) else item.default,
        }
    return {"type": "object", "additionalProperties": False, "properties": properties}

"""The OpenAPI document, its page, and generated calls against it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from drf_spectacular.drainage import GENERATOR_STATS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import booleans, one_of
from rest_framework.test import APIClient
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi_checks

from fedcore.spec.job import JobSpec, options
from webapp.accounts.models import create_token

pytestmark = pytest.mark.postgresql

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "api.md"


@pytest.fixture
def document(viewer_api: APIClient) -> dict[str, Any]:
    answer = viewer_api.get("/api/schema/?format=json")
    assert answer.status_code == 200
    return dict(answer.json())


def test_schema_generates_without_warnings(viewer_api: APIClient) -> None:
    GENERATOR_STATS.reset()
    viewer_api.get("/api/schema/")
    result = [*GENERATOR_STATS._warn_cache, *GENERATOR_STATS._error_cache]
    assert [line for line in result if "/api/device/" not in line] == []


def test_every_path_is_documented(document: dict[str, Any]) -> None:
    result = set(re.findall(r"`(?:[A-Z, ]+ )?(/api/v1/[^`?]+)`", DOCS.read_text("utf-8")))
    known = {re.sub(r"{\w+}", "{}", path) for path in document["paths"]}
    listed = {re.sub(r"<\w+>", "{}", path) for path in result}
    people = {path for path in known if not path.startswith(("/api/v1/device/", "/api/v1/enrol/"))}
    assert people - listed == set(), "missing in docs/reference/api.md"
    assert listed - known == set(), "docs/reference/api.md names what does not exist"


def test_every_operation_says_what_it_does(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path} has no description"
            assert "default" in operation["responses"]


def test_schema_spec_matches_jobspec(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["JobSpec"]
    for option in options(JobSpec):
        place = schema
        for part in option.path.split("."):
            place = place["properties"][part]
        assert place["title"] == option.label


def test_docs_page_obeys_content_policy(client: Any, viewer: Any) -> None:
    client.force_login(viewer, backend="django.contrib.auth.backends.ModelBackend")
    answer = client.get("/api/docs/")
    html, policy = answer.content.decode(), answer["Content-Security-Policy"]
    assert "unsafe" not in policy and "script-src 'self'" in policy
    assert not re.search(r"<script>|<style|style=|onclick|https?://", html)
    assert "swagger-ui-bundle.js" in html


CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
EXAMPLES = 8
# The machine acts as this admin, whose password is slow to hash and stays.
UNCHANGED = ("/api/v1/me/password/",)


def known_ids(fleet: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Ids that exist, by the start of the path that takes them."""
    return {
        "/api/v1/devices/{id}": {"id": fleet["devices"][0].pk},
        "/api/v1/enrolments/{id}": {"id": fleet["enrolment"].pk},
        "/api/v1/jobs/{id}": {"id": str(fleet["job"].pk)},
        "/api/v1/rounds/{id}": {"id": fleet["round"].pk},
        "/api/v1/assignments/{id}": {"id": str(fleet["assignment"].pk)},
        "/api/v1/artefacts/{sha256}": {"sha256": fleet["artefact"].sha256},
        "/api/v1/events/{id}": {"id": fleet["event"].pk},
        "/api/v1/tokens/{id}": {"id": str(fleet["token"].public_id)},
        "/api/v1/users/{id}": {"id": fleet["users"]["viewer"].pk},
    }


@pytest.fixture
def app() -> Iterator[Any]:
    """The site as a WSGI application that keeps the test's database connection open."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield get_wsgi_application()
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.mark.slow
def test_responses_match_the_schema(fleet: dict[str, Any], app: Any) -> None:
    """Valid and broken input for every operation, as an admin; nothing may be a 500."""
    _, secret = create_token(fleet["users"]["admin"], "machine")
    headers = {"Authorization": f"Token {secret}"}
    schema = schemathesis.openapi.from_wsgi("/api/schema/?format=json", app, headers=headers)
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if not operation.path.startswith(("/api/v1/device/", "/api/v1/enrol/", *UNCHANGED)):
            try_operation(operation, headers, known_ids(fleet))
            tried += 1
    assert tried > 40


def try_operation(operation: Any, headers: dict[str, str], ids: dict[str, Any]) -> None:
    """Half of the examples name things that exist. What an example changes is undone."""
    ours = next((ids[start] for start in ids if operation.path.startswith(start)), {})
    valid = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    broken = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    takes_input = operation.body or operation.query or operation.path_parameters

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=one_of(valid, broken) if takes_input else valid, exists=booleans())
    def play(case: Any, exists: bool) -> None:
        if exists and case.path_parameters:
            case.path_parameters = {**case.path_parameters, **ours}
        with transaction.atomic():
            case.call_and_validate(headers=headers, checks=CHECKS)
            transaction.set_rollback(True)

    play()

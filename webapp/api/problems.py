"""Every error of the REST API as problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404, HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from fedcore.errors import EdgewiseError, Fault, SpecError
from webapp.common.problem_document import CONTENT_TYPE, document


class Conflict(exceptions.APIException):
    """The resource's state does not allow the call; ``detail`` says which would."""

    status_code = 409
    default_detail = "this is not possible now"
    default_code = "conflict"


class Faulty(exceptions.APIException):
    """A request with one or more faults, reported together."""

    status_code = 400
    default_code = "invalid"

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in faults))


def problem(
    status: int,
    detail: str,
    faults: Sequence[Fault] = (),
    headers: dict[str, str] | None = None,
) -> JsonResponse:
    """A problem as a plain Django response, for views outside the REST framework."""
    body = document(status, detail, faults)
    return JsonResponse(body, status=status, content_type=CONTENT_TYPE, headers=headers)


@csrf_exempt
@login_not_required
def not_found(request: HttpRequest, **_rest: str) -> JsonResponse:
    """404 for any other address under /api/."""
    return problem(404, f"there is nothing at {request.path}; see /api/docs/")


def problem_response(error: Exception, _context: dict[str, Any]) -> Response | None:
    """Exception handler of REST framework. An unknown exception stays a server error (500)."""
    summary = _summarise(error)
    if summary is None:
        return None
    set_rollback()
    status, detail, faults = summary
    headers: dict[str, str] = {}
    if getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = str(error.auth_header)  # type: ignore[attr-defined]
    wait = getattr(error, "wait", None)
    if wait:
        headers["Retry-After"] = str(max(1, int(wait)))
    response = Response(document(status, detail, faults), status=status, headers=headers)
    response.content_type = CONTENT_TYPE
    return response


def _summarise(error: Exception) -> tuple[int, str, Sequence[Fault]] | None:
    if isinstance(error, Http404):
        return 404, "this does not exist, or you may not see it", ()
    if isinstance(error, PermissionDenied):
        return 403, str(error) or "you may not do this", ()
    if isinstance(error, RequestDataTooBig):
        return 413, "the request is too large; send less at once", ()
    if isinstance(error, (SpecError, Faulty)):
        return 400, str(error), error.faults
    if isinstance(error, exceptions.ValidationError):
        faults = tuple(faults_in(error.detail))
        return 400, "; ".join(str(fault) for fault in faults), faults
    if isinstance(error, exceptions.APIException):
        text = "; ".join(str(fault) for fault in faults_in(error.detail))
        return error.status_code, text or "refused", ()
    if isinstance(error, EdgewiseError):
        return getattr(error, "status", 503 if error.retryable else 409), str(error), ()
    return None


def faults_in(detail: Any, path: str = "") -> Iterator[Fault]:
    """One fault per nested error of a serializer or filter, with a dotted path."""
    if isinstance(detail, dict):
        for key, value in detail.items():
            inner = path if key == "non_field_errors" else f"{path}.{key}" if path else str(key)
            yield from faults_in(value, inner)
    elif isinstance(detail, (list, tuple)):
        for index, value in enumerate(detail):
            nested = isinstance(value, dict)
            yield from faults_in(value, f"{path}.{index}" if nested and path else path)
    else:
        yield Fault(path, str(detail))

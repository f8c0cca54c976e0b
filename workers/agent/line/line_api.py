"""What a device tells the site over its line: one method per kind of frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedcore.errors import ServerRefused
from fedcore.formats.line_bodies import UpKind
from workers.agent.http.socket import Check, no_check
from workers.agent.line.site_call import Caller

TOO_LARGE = 413  # the answer is larger than a message


@dataclass(frozen=True)
class FailureReport:
    """Why an assignment failed, as ``fedcore.formats.line_bodies.FailBody`` carries it."""

    assignment: str
    reason: str
    retryable: bool
    step: int | None = None
    out_of_memory: bool = False
    micro_batch: int = 0


class LineApi:
    """Raises what ``Caller`` says.

    ``fetch_assignment`` gets the answer to ``accept`` by HTTP where it is too large for the line.
    """

    def __init__(self, caller: Caller, fetch_assignment: Callable[[str], dict[str, Any]]) -> None:
        self._caller, self._fetch_assignment = caller, fetch_assignment

    def accept(self, assignment: str, check: Check = no_check) -> dict[str, Any]:
        """Take the work; returns its description."""
        try:
            return self._caller.call(UpKind.ACCEPT, {"assignment": assignment}, check)
        except ServerRefused as refusal:
            if refusal.status != TOO_LARGE:
                raise
        return self._fetch_assignment(assignment)

    def progress(self, assignment: str, phase: str, check: Check = no_check) -> None:
        body = {"assignment": assignment, "phase": phase}
        self._caller.call(UpKind.PROGRESS, body, check)

    def report(self, assignment: str, body: Mapping[str, Any], check: Check = no_check) -> None:
        self._caller.call(UpKind.REPORT, {"assignment": assignment, **body}, check)

    def fail(self, failure: FailureReport, check: Check = no_check) -> None:
        body = {**asdict(failure), "reason": failure.reason[:2000]}
        self._caller.call(UpKind.FAIL, body, check)

    def refuse(self, assignment: str, reason: str, check: Check = no_check) -> None:
        body = {"assignment": assignment, "reason": reason[:2000]}
        self._caller.call(UpKind.REFUSE, body, check)

    def measurements(self, body: Mapping[str, Any], check: Check = no_check) -> dict[str, Any]:
        """``interval_s``, if the site answers with more than an acknowledgement."""
        return self._caller.call(UpKind.MEASUREMENTS, body, check)

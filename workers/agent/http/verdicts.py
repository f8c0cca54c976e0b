"""Tells the site's own refusals from the answers of anything on the way to it."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, field

from fedcore.formats.verdicts import (
    NONCE_HEADER,
    digest,
    from_header,
    read_verdict,
    request_name,
)
from workers.agent.agent_errors import Intercepted
from workers.agent.state.site_key import SiteKey

REDIRECTS = frozenset({301, 302, 303, 307, 308})
# What an answer of something on the way usually means.
HINTS = {
    401: "it asks for a log-in",
    403: "it blocks them",
    404: "it does not pass them on to the site",
    405: "it does not allow their method",
    407: "it asks for a log-in",
    411: "it does not take them without a length",
    413: "its body limit is too small",
    502: "the site may be restarting",
    503: "the site may be restarting",
    504: "it does not wait long enough, or the site is away",
    511: "it asks for a log-in",
}
LOG_IN_PAGE = "perhaps with a page to log in to the network"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """A request to the site; the verdict on it repeats the nonce."""

    request: str
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(18))

    @property
    def headers(self) -> dict[str, str]:
        return {NONCE_HEADER: self.nonce}


def ask(method: str, path: str) -> Question:
    return Question(request_name(method, path))


class VerdictReader:
    """Knows the credential with which this device asks, and the site's key."""

    def __init__(self, token: str, key: SiteKey) -> None:
        self._credential, self._key = digest(token), key

    def is_from_site(
        self, question: Question, status: int, verdict_header: str, location: str = ""
    ) -> bool:
        """Whether the site itself answered this request with this status."""
        signed = from_header(verdict_header)
        if signed is None or not self._key.has_signed(*signed):
            return False
        verdict = read_verdict(signed[0])
        return verdict is not None and (
            verdict.credential == self._credential
            and verdict.request == question.request
            and verdict.nonce == question.nonce
            and verdict.status == status
            and verdict.target == (digest(location) if location else "")
        )


def intercepted(
    status: int, requests: str, location: str = "", after_s: float = 0.0
) -> Intercepted:
    """The error for an answer that is not the site's. ``requests``: such as 'uploads'.

    The text has no word of the answer, because it may be reported to the site.
    """
    if location:
        log.info("something between this device and the site redirects to %.200s", location)
    words = f"something between this device and the site answers {status} to {requests}"
    if status < 300:
        hint = LOG_IN_PAGE
    elif status in REDIRECTS:
        hint = "it redirects, perhaps to a page to log in to the network"
    else:
        hint = HINTS.get(status, "")
    return Intercepted(f"{words}; {hint}" if hint else words, status, after_s)

"""Why the site ends a line."""

from __future__ import annotations

from fedcore.formats.line_messages import HELLO_AGAIN, MALFORMED, REPLACED, REVOKED, TOO_MUCH

CLOSE_REASONS = {
    REPLACED: "a newer line of this device was opened",
    REVOKED: "this device was revoked",
    HELLO_AGAIN: "say hello first",
    MALFORMED: "not a message of this protocol",
    TOO_MUCH: "too many messages",
}


class LineClosed(Exception):
    """The line must end. ``code`` is one of the close codes of ``CLOSE_REASONS``."""

    def __init__(self, code: int) -> None:
        super().__init__(CLOSE_REASONS[code])
        self.code = code

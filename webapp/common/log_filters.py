"""What is not worth a line of the log."""

from __future__ import annotations

import logging

from fedcore.formats.line_messages import PATH

# Logged by the library for every WebSocket, without a word of whose it is.
ANONYMOUS = ("connection open", "connection closed", "connection rejected")


class DeviceConnections(logging.Filter):
    """Drops the INFO lines about each accepted connection of a device: there are thousands."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno > logging.INFO:
            return True
        message = record.getMessage()
        return not message.startswith(ANONYMOUS) and not message.endswith(f'{PATH}" [accepted]')

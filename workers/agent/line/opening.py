"""Opens the WebSocket to the site, or says in plain words why it does not open."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidProxyStatus,
    InvalidStatus,
    ProxyError,
    WebSocketException,
)
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol

from fedcore.formats.line_messages import MAX_MESSAGE_BYTES, PATH, subprotocols
from fedcore.formats.verdicts import VERDICT_HEADER
from workers.agent.agent_errors import Busy, Obstructed, Revoked
from workers.agent.agent_settings import VERSION
from workers.agent.http.requests import unavailable
from workers.agent.http.server_api import Address, tls_context
from workers.agent.http.verdicts import Question, VerdictReader, ask, intercepted
from workers.agent.state.site_key import SiteKey

OPEN_S = 15.0
CLOSE_S = 0.5
LONGEST_WAIT_S = 300.0  # for a site that asks to come back later
UPDATE_RETRY_S = 300.0
PROBLEM = "application/problem+json"
AWAY = frozenset({502, 503, 504})  # what the site's own proxy says while the site restarts
NO_WEBSOCKET = "something between this device and the site speaks no WebSocket"

# Its records repeat what ``problem`` of a line says, with tracebacks.
_quiet = logging.getLogger("workers.agent.line.websocket")
_quiet.setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class LineSite:
    """Where a line leads. ``tls`` is shared by all lines of a process; None for ``ws://``.

    ``address`` is that of polls. Its key tells the site's refusals from those of others; without
    one, any problem document is taken for the site's.
    """

    url: str
    address: Address
    tls: ssl.SSLContext | None = None


def line_site(
    server: str, token: str, ca_file: Path | None = None, key: SiteKey | None = None
) -> LineSite:
    """The line of a site with the address ``server`` (http:// or https://, perhaps a path)."""
    return line_site_of(Address(server, token, ca_file, key=key))


def line_site_of(address: Address) -> LineSite:
    parts = urlsplit(address.url)
    secure = parts.scheme == "https"
    url = f"{'wss' if secure else 'ws'}://{parts.netloc}{parts.path.rstrip('/')}{PATH}"
    return LineSite(url, address, tls_context(address.ca_file) if secure else None)


class LineConnection(ClientConnection):
    """Knows when anything last came from the site, pings included (of the loop's clock)."""

    heard_at = 0.0
    was_silent = False  # ended by this device, because nothing came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.heard_at = self.loop.time()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        super().data_received(data)
        if self.protocol.state is State.CLOSING:
            # The site said that it closes; it has this long to do so.
            self.loop.call_later(CLOSE_S, self.transport.abort)


class _Opening(connect):
    """Follows no redirect: the credential is for one address."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def _opening(site: LineSite, question: Question) -> _Opening:
    return _Opening(
        site.url,
        additional_headers={
            "Authorization": f"Device {site.address.token}",
            **question.headers,
        },
        user_agent_header=f"edgewise-agent/{VERSION}",
        subprotocols=[Subprotocol(name) for name in subprotocols()],
        compression=None,
        open_timeout=OPEN_S,
        close_timeout=CLOSE_S,
        ping_interval=None,
        max_size=MAX_MESSAGE_BYTES,
        logger=_quiet,
        create_connection=LineConnection,
        ssl=site.tls,
    )


async def open_line(site: LineSite) -> LineConnection:
    """Raises ServerUnavailable, Obstructed for what stands in the way, and Revoked."""
    question = ask("GET", PATH)
    try:
        connection = await _opening(site, question)
    except InvalidStatus as error:
        raise refusal_of(site, question, error.response) from error
    except InvalidProxyStatus as error:
        raise Busy(f"the proxy answers {error.response.status_code}; see HTTPS_PROXY") from error
    except ProxyError as error:
        raise Busy("the proxy does not answer as one; see HTTPS_PROXY") from error
    except InvalidMessage as error:
        raise Obstructed("the connection was cut before the site answered") from error
    except InvalidHandshake as error:
        raise Obstructed(NO_WEBSOCKET, certain=True) from error
    except (TimeoutError, asyncio.TimeoutError) as error:  # two classes in Python 3.10
        raise Obstructed(f"the site did not answer within {OPEN_S:.0f} s") from error
    except (OSError, ImportError, WebSocketException) as error:
        raise await asyncio.to_thread(unavailable, error, site.address.url) from error
    assert isinstance(connection, LineConnection)
    return connection


def refusal_of(site: LineSite, question: Question, response: Response) -> Busy | Revoked:
    """What a refused upgrade means. Only the site's own, signed answer is its verdict."""
    status, headers = response.status_code, response.headers
    detail, location = problem_detail(response), headers.get("Location", "")
    text = headers.get("Retry-After", "")
    after_s = min(float(text), LONGEST_WAIT_S) if text.isascii() and text.isdigit() else 0.0
    key, verdict = site.address.key, headers.get(VERDICT_HEADER, "")
    is_own = bool(detail) and (
        key is None
        or VerdictReader(site.address.token, key).is_from_site(question, status, verdict, location)
    )
    if not is_own:
        error = intercepted(status, "the line", location, after_s)
        return Obstructed(str(error), after_s, certain=status not in AWAY)
    if status == 401:
        return Revoked(detail, status)
    if status == 426:
        return Busy(detail, max(after_s, UPDATE_RETRY_S))
    return Busy(detail, after_s)


def problem_detail(response: Response) -> str:
    """The text of the site's problem document; '' for an answer of anything else."""
    if not response.headers.get("Content-Type", "").startswith(PROBLEM):
        return ""
    try:
        values = json.loads(bytes(response.body or b""))
    except ValueError:
        return ""
    if not isinstance(values, dict) or values.get("status") != response.status_code:
        return ""
    return str(values.get("detail") or "")

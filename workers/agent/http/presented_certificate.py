"""What a server shows that cannot prove its identity: read for an error message, never believed."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from urllib.parse import urlsplit

from cryptography.x509 import load_der_x509_certificate

from workers.agent.http.byte_counts import Traffic
from workers.agent.http.connection import Connection


@dataclass(frozen=True)
class Presented:
    """The certificate's dates, and the time that the server tells; None where it tells none."""

    begins: datetime
    ends: datetime
    server_time: datetime | None


def look_at(url: str) -> Presented | None:
    """Ask once more without a proof and without a credential; None where that fails too."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        return None
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    connection = Connection(parts, Traffic(), unverified)
    try:
        certificate = load_der_x509_certificate(connection.open_socket.peer_certificate())
        connection.request("HEAD", "/", headers={"Connection": "close"})
        date = connection.getresponse().getheader("Date")
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    server_time = None
    with contextlib.suppress(TypeError, ValueError):
        server_time = parsedate_to_datetime(date or "").astimezone(timezone.utc)
    return Presented(begins, ends, server_time)

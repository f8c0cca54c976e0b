"""Certificates that a device refuses, and what it says about each."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fedcore.errors import ServerUnavailable
from tests.agent.test_private_transfer import Proxy
from workers.agent.http.presented_certificate import look_at
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.line.opening import line_site, open_line

TODAY = datetime.now(timezone.utc)
DAY = timedelta(days=1)


def make_certificate(folder: Path, begins: datetime, ends: datetime, name: str) -> Path:
    """A self-signed certificate with its key, in one file."""
    key = generate_private_key(SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgewise test")])
    names = [x509.DNSName(name)] if name else [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "site.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return path


Serve = Callable[..., str]


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Devices that hang up are part of these tests."""


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(certificate)`` starts an HTTPS server; returns its address.

    ``ahead``: its clock's time minus this machine's.
    """
    servers = []

    def start(certificate: Path, ahead: timedelta = timedelta(0)) -> str:
        class Handler(BaseHTTPRequestHandler):
            def date_time_string(self, timestamp: float | None = None) -> str:
                return format_datetime(datetime.now(timezone.utc) + ahead, usegmt=True)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server = Server(("127.0.0.1", 0), Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"https://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def problems(url: str, ca_file: Path | None) -> set[str]:
    """What a call and the line say."""
    with pytest.raises(ServerUnavailable) as call:
        ServerApi(Address(url, "token", ca_file)).assignment("x")
    with pytest.raises(ServerUnavailable) as line:
        asyncio.run(open_line(line_site(url, "token", ca_file)))
    return {str(call.value), str(line.value)}


def test_expired_certificate_names_both_dates(tmp_path: Path, serve: Serve) -> None:
    ended = TODAY - 40 * DAY
    certificate = make_certificate(tmp_path, TODAY - 400 * DAY, ended, "")
    today = datetime.now(timezone.utc).date()
    assert problems(serve(certificate), certificate) == {
        f"the server's certificate ended on {ended.date()}, and this device's clock says "
        f"{today}; renew the certificate, or set the clock if it is wrong"
    }


def test_certificate_of_the_future_names_both_dates(tmp_path: Path, serve: Serve) -> None:
    begins = TODAY + 40 * DAY
    certificate = make_certificate(tmp_path, begins, begins + 90 * DAY, "")
    today = datetime.now(timezone.utc).date()
    assert problems(serve(certificate), certificate) == {
        f"the server's certificate is valid from {begins.date()}, and this device's clock says "
        f"{today}; set the clock if it is wrong, or that of the machine that made the certificate"
    }


@pytest.mark.parametrize("days", [-60, 60], ids=["device ahead", "device behind"])
def test_wrong_clock_names_both_clocks(tmp_path: Path, serve: Serve, days: int) -> None:
    """The certificate is valid by the server's clock, and not by this device's."""
    ahead = timedelta(days=days)
    begins, ends = TODAY + ahead - 20 * DAY, TODAY + ahead + 20 * DAY
    certificate = make_certificate(tmp_path, begins, ends, "")
    (problem,) = {text.split(";")[0] for text in problems(serve(certificate, ahead), certificate)}
    assert problem.startswith(f"this device's clock is wrong: it says {TODAY.date()}")
    assert f"the server's says {(TODAY + ahead).date()}" in problem


def test_dates_are_looked_at_through_the_proxy(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path, TODAY - 400 * DAY, TODAY - 40 * DAY, "")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    url, proxy = serve(certificate), Proxy()
    monkeypatch.setenv("https_proxy", proxy.url)
    presented = look_at(url)
    assert presented is not None and presented.ends.date() == (TODAY - 40 * DAY).date()
    assert proxy.head.startswith(b"CONNECT 127.0.0.1") and b"token" not in proxy.head


def test_other_name(tmp_path: Path, serve: Serve) -> None:
    certificate = make_certificate(tmp_path, TODAY - DAY, TODAY + DAY, "edgewise.example")
    (problem,) = problems(serve(certificate), certificate)
    assert problem.startswith("the server's certificate is for another name (IP address mismatch")
    assert problem.endswith("use the name that is in the certificate")


def test_unknown_authority(tmp_path: Path, serve: Serve) -> None:
    certificate = make_certificate(tmp_path, TODAY - DAY, TODAY + DAY, "")
    assert problems(serve(certificate), None) == {
        "the server's certificate is not trusted; set EDGEWISE_CA_FILE to its authority's file"
    }


@pytest.mark.parametrize("url", ["", "https://127.0.0.1:1/", "http://127.0.0.1:1/"])
def test_dates_of_no_certificate(url: str) -> None:
    assert look_at(url) is None

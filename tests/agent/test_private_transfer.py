"""Transfers over TLS, with a private certificate authority, and through proxies."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedcore.errors import ServerRefused, ServerUnavailable
from tests.agent.conftest import ROOT
from tests.agent.transfers import CONTENT, SHA256, Site, fetch
from workers.agent.assignment.artefact_cache import ArtefactCache
from workers.agent.http.server_api import Address, ServerApi, tls_context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (ca.crt) and its certificate for localhost."""
    folder = tmp_path_factory.mktemp("certs")
    command = ["sh", str(ROOT / "deploy" / "make-certs.sh"), "localhost"]
    subprocess.run(command, env={**os.environ, "CERTS": str(folder)}, check=True)
    return folder


@pytest.fixture
def tls_site(authority: Path) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "fullchain.pem", authority / "privkey.pem")
    tls_server = Site(context)
    yield tls_server
    tls_server.shutdown()
    tls_server.server_close()


def test_less_private_redirect_is_not_followed(
    tls_site: Site, authority: Path, cache: ArtefactCache
) -> None:
    tls_site.redirect = "http://localhost:1/bucket"
    server = ServerApi(Address(tls_site.url, "secret", authority / "ca.crt"))
    with pytest.raises(ServerRefused, match="not private"):
        fetch(server, cache)


def test_tls_with_a_private_authority(
    tls_site: Site, authority: Path, cache: ArtefactCache, update: Path
) -> None:
    server = ServerApi(Address(tls_site.url, "secret", authority / "ca.crt"))
    assert fetch(server, cache).read_bytes() == CONTENT
    server.upload("a", update, SHA256)
    assert tls_site.part == CONTENT
    assert tls_site.connections == 1
    # A fresh connection: what TLS itself says after its handshake is no answer.
    tls_site.part = b""
    ServerApi(Address(tls_site.url, "secret", authority / "ca.crt")).upload("a", update, SHA256)
    assert tls_site.part == CONTENT
    with pytest.raises(ServerUnavailable, match="EDGEWISE_CA_FILE"):
        ServerApi(Address(tls_site.url, "secret")).assignment("a")


def test_ca_file_is_trusted_beside_public_authorities(authority: Path) -> None:
    public = tls_context(None).cert_store_stats()["x509_ca"]
    assert tls_context(authority / "ca.crt").cert_store_stats()["x509_ca"] == public + 1 > 1


class Proxy(threading.Thread):
    """Forwards one request: CONNECT, or an absolute URL in plain HTTP."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.head = b""
        self.start()

    @property
    def url(self) -> str:
        return f"http://me:pass%20word@localhost:{self.listener.getsockname()[1]}"

    def run(self) -> None:
        client, _ = self.listener.accept()
        while b"\r\n\r\n" not in self.head:
            self.head += client.recv(65_536)
        target = self.head.split()[1].decode().removeprefix("http://").split("/")[0]
        onward = socket.create_connection(("127.0.0.1", int(target.split(":")[1])))
        if self.head.startswith(b"CONNECT"):
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            first, rest = self.head.split(b"\r\n", 1)
            words = first.split()
            path = b"/" + words[1].split(b"/", 3)[3]
            onward.sendall(b" ".join([words[0], path, words[2]]) + b"\r\n" + rest)
        threading.Thread(target=pump, args=(client, onward), daemon=True).start()
        pump(onward, client)


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            target.sendall(data)
    except OSError:
        return


def test_through_a_proxy(
    site: Site,
    tls_site: Site,
    authority: Path,
    cache: ArtefactCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for way in (site, tls_site):
        proxy = Proxy()
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv("https_proxy" if way.tls else "http_proxy", proxy.url)
        server = ServerApi(Address(way.url, "secret", authority / "ca.crt"))
        assert fetch(server, cache).read_bytes() == CONTENT
        (cache._folder / SHA256).unlink()
        assert b"proxy-authorization: basic bwu6cgfzcyb3b3jk" in proxy.head.lower()
        assert proxy.head.startswith(b"CONNECT localhost" if way.tls else b"GET http://localhost")
        assert way.heard == [f"GET /api/v1/device/artefacts/{SHA256}/"]
        server.close()
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.setenv("http_proxy", "http://localhost:1")
    assert fetch(ServerApi(Address(site.url, "secret")), cache).read_bytes() == CONTENT

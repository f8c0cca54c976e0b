"""Who calls: peers, trusted proxies and forged headers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory

from webapp.accounts.checks import check_proxies
from webapp.common.client_address import client_address, limit_address
from webapp.common.rate import Rate
from webapp.common.settings_checks import trusted_networks
from webapp.transfer.forwarded_headers import ForwardedHeaders

PROXIES = ["10.0.0.0/24", "2001:db8:ffff::/48"]


def scope(peer: str | None, *forwarded: str, proto: str = "", kind: str = "http") -> dict[str, Any]:
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    headers += [(b"x-forwarded-proto", proto.encode())] if proto else []
    return {"type": kind, "client": (peer, 5000) if peer else None, "headers": headers}


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.2", [], "10.0.0.2"),
        ("10.0.0.2", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["1.2.3.4", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["1.2.3.4, 198.51.100.1, 10.0.0.3"], "198.51.100.1"),
        ("10.0.0.2", ["10.0.0.4, 10.0.0.3"], "10.0.0.4"),
        ("10.0.0.2", ["198.51.100.1, nonsense"], "10.0.0.2"),
        ("10.0.0.2", ["198.51.100.1, nonsense, 10.0.0.3"], "10.0.0.3"),
        ("10.0.0.2", [""], "10.0.0.2"),
        ("::ffff:10.0.0.2", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["198.51.100.1:4711"], "198.51.100.1"),
        ("2001:db8:ffff::7", ["[2001:DB8::00:9]:4711"], "2001:db8::9"),
        ("fe80::1%eth0", [], "fe80::1"),
        (None, ["198.51.100.1"], ""),
    ],
)
def test_only_trusted_proxies_move_the_address(
    settings: Any, peer: str | None, forwarded: list[str], client: str
) -> None:
    settings.TRUSTED_PROXIES = trusted_networks(PROXIES)
    assert client_address(scope(peer, *forwarded)) == client
    meta = {"REMOTE_ADDR": peer or ""}
    if forwarded:
        meta["HTTP_X_FORWARDED_FOR"] = ",".join(forwarded)
    assert client_address(RequestFactory().get("/", **meta)) == client


def test_without_proxies_the_peer_counts(settings: Any) -> None:
    assert settings.TRUSTED_PROXIES == ()
    assert client_address(scope("127.0.0.1", "198.51.100.1")) == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("2001:db8:1:3::6", "2001:db8:1:3::"),
        ("198.51.100.1", "198.51.100.1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
    ],
)
def test_limits_count_by_address_and_by_64(address: str, counted: str) -> None:
    assert limit_address(scope(address)) == counted


def seen_inside(outside: dict[str, Any]) -> dict[str, Any]:
    scopes: list[dict[str, Any]] = []

    async def inside(inner: dict[str, Any], _receive: Any, _send: Any) -> None:
        scopes.append(inner)

    asyncio.run(ForwardedHeaders(inside)(outside, None, None))  # type: ignore[arg-type]
    return scopes[0]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_what_is_inside_sees_the_caller(settings: Any, kind: str) -> None:
    settings.TRUSTED_PROXIES = trusted_networks(PROXIES)
    inner = seen_inside(scope("10.0.0.2", "198.51.100.1", proto="https", kind=kind))
    assert inner["client"] == ("198.51.100.1", 0)
    assert inner["headers"] == [(b"x-forwarded-proto", b"https")]
    assert client_address(inner) == "198.51.100.1"
    forged = seen_inside(scope("203.0.113.9", "198.51.100.1", proto="https", kind=kind))
    assert (forged["client"], forged["headers"]) == (("203.0.113.9", 5000), [])


def test_a_site_that_names_no_proxy_learns_the_scheme_but_no_address() -> None:
    inner = seen_inside(scope("10.0.0.2", "198.51.100.1", proto="https"))
    assert inner["client"] == ("10.0.0.2", 5000)
    assert inner["headers"] == [(b"x-forwarded-proto", b"https")]


@pytest.mark.parametrize(
    "name", ["*", "proxy.example", "10.0.0.1/24", "10.0.0.0/33", "::ffff:10.0.0.0/120", "10.0.0"]
)
def test_nonsense_proxies_stop_the_start(name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="EDGEWISE_TRUSTED_PROXIES"):
        trusted_networks(["127.0.0.1", name])


@pytest.mark.parametrize("text", ["", "0/min", "30", "30/fortnight", "-1/min", "1e3/min", "many"])
def test_nonsense_rates_stop_the_start(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="EDGEWISE_THROTTLE_LOGIN must be a rate"):
        Rate.parse("EDGEWISE_THROTTLE_LOGIN", text)


def test_rates() -> None:
    assert Rate.parse("X", "30/min") == Rate(30, 60.0)
    assert Rate.parse("X", "100000/day") == Rate(100_000, 86_400.0)


@pytest.mark.parametrize(
    ("url", "proxies", "uvicorns", "warnings"),
    [
        ("https://edgewise.example", ["10.0.0.7"], "", []),
        ("http://127.0.0.1:8000", [], "", []),
        ("https://edgewise.example", [], "", ["edgewise.W002"]),
        ("https://edgewise.example", ["0.0.0.0/0"], "", ["edgewise.W001"]),
        ("https://edgewise.example", ["10.0.0.7", "::/0"], "", ["edgewise.W001"]),
        ("https://edgewise.example", ["10.0.0.7"], "10.0.0.7", ["edgewise.W003"]),
    ],
)
def test_deploy_check_of_proxies(
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    proxies: list[str],
    uvicorns: str,
    warnings: list[str],
) -> None:
    settings.PUBLIC_URL = url
    settings.TRUSTED_PROXIES = trusted_networks(proxies)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", uvicorns)
    assert [message.id for message in check_proxies()] == warnings

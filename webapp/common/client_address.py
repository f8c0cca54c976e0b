"""Who calls: the one answer for limits, log-in locks and logs.

The peer of the connection counts, unless it is a trusted proxy (``EDGEWISE_TRUSTED_PROXIES``). Then
``X-Forwarded-For`` is read from its end: each trusted proxy vouches for the entry it added.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

from django.conf import settings

IPAddress = IPv4Address | IPv6Address
# One customer of an IPv6 provider has at least a /64.
CUSTOMER_PREFIX = 64


def client_address(source: Any) -> str:
    """The caller's address; "" if the peer has none (a Unix socket).

    ``source``: a request of Django or REST framework, or an ASGI scope.
    """
    if isinstance(source, Mapping):
        lines = [value for name, value in source["headers"] if name == b"x-forwarded-for"]
        address, forwarded = peer_of(source), b",".join(lines).decode("latin-1")
    else:
        address = parsed(source.META.get("REMOTE_ADDR") or "")
        forwarded = source.META.get("HTTP_X_FORWARDED_FOR", "")
    for hop in reversed(forwarded.split(",") if forwarded else ()):
        # An unreadable entry ends the chain: the proxy that passed it on counts instead.
        previous = parsed(hop) if is_trusted(address) else None
        if previous is None:
            break
        address = previous
    return "" if address is None else str(address)


def limit_address(source: Any) -> str:
    """What limits count by: the IPv4 address, or the first address of the IPv6 /64."""
    address = parsed(client_address(source))
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, CUSTOMER_PREFIX), strict=False).network_address)
    return "" if address is None else str(address)


def lock_address(request: Any) -> str | None:
    """The same for django-axes, which stores it in a column for addresses."""
    return limit_address(request) or None


def is_trusted(address: IPAddress | None) -> bool:
    """Whether this is a proxy that ``EDGEWISE_TRUSTED_PROXIES`` names."""
    return address is not None and any(address in proxies for proxies in settings.TRUSTED_PROXIES)


def peer_of(scope: Mapping[str, Any]) -> IPAddress | None:
    """The address at the other end of the connection."""
    return parsed((scope.get("client") or ("",))[0])


@lru_cache(maxsize=4096)
def parsed(text: str) -> IPAddress | None:
    """An address, with or without a port; None if it is none. IPv4 in IPv6 becomes IPv4."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address

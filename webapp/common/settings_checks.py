"""Checks of environment variables, called by ``webapp.settings`` before Django is set up."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import quote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from fedcore.rounds.retention import RetentionPolicy

MIN_GRACE_H = 0.02  # an aggregation stores its result before a row refers to it


def check_public_url(url: str) -> None:
    """Raises ImproperlyConfigured unless ``url`` is an absolute HTTP(S) address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ImproperlyConfigured(
            f"EDGEWISE_URL must be an address such as https://edgewise.example, not {url!r}"
        )


def trusted_networks(names: Sequence[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """EDGEWISE_TRUSTED_PROXIES. Raises ImproperlyConfigured for what is no address or network."""
    networks = []
    for name in filter(None, map(str.strip, names)):
        try:
            network = ip_network(name)
        except ValueError as error:
            raise ImproperlyConfigured(
                f"EDGEWISE_TRUSTED_PROXIES takes addresses and networks such as 10.0.0.7 or "
                f"10.0.0.0/24: {error}"
            ) from error
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
            raise ImproperlyConfigured(f"EDGEWISE_TRUSTED_PROXIES: write {name} as IPv4")
        networks.append(network)
    return tuple(networks)


def verified_redis_url(url: str, ca_file: str) -> str:
    """``url`` with certificate verification switched on; kombu verifies nothing by default."""
    if not url.startswith("rediss:") or "ssl_cert_reqs=" in url:
        return url
    authority = f"&ssl_ca_certs={quote(ca_file)}" if ca_file else ""
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required{authority}"


def check_line_limits(messages_per_s: float, bytes_per_s: float, patience_s: float) -> None:
    """Raises ImproperlyConfigured for limits that would keep every device out."""
    if messages_per_s <= 0 or bytes_per_s <= 0 or patience_s < 0:
        raise ImproperlyConfigured(
            "EDGEWISE_LINE_MESSAGES_PER_S and _BYTES_PER_S must be above 0, and "
            "EDGEWISE_LINE_PATIENCE_S must not be below 0"
        )


def check_retention(
    retention: tuple[int, float, float, float], sample_ages_h: tuple[float, float, float]
) -> None:
    """``retention``: models, hours of updates, hours of grace, seconds between two collections.

    Raises ImproperlyConfigured naming the variable and the value to set instead.
    """
    models, updates_h, grace_h, interval_s = retention
    try:
        RetentionPolicy(models, updates_h * 3600.0)
    except ValueError as error:
        name = "EDGEWISE_KEEP_MODELS" if models < 1 else "EDGEWISE_KEEP_UPDATES_H"
        raise ImproperlyConfigured(f"{name}: {error}") from error
    if grace_h < MIN_GRACE_H:
        raise ImproperlyConfigured(
            f"EDGEWISE_COLLECT_GRACE_H={grace_h:g} could delete an artefact that a running job is "
            f"just storing; set at least {MIN_GRACE_H:g}"
        )
    if interval_s < 1:
        raise ImproperlyConfigured("EDGEWISE_COLLECT_INTERVAL_S must be at least 1 second")
    if not 0 < sample_ages_h[0] <= sample_ages_h[1] <= sample_ages_h[2]:
        raise ImproperlyConfigured(
            "EDGEWISE_KEEP_SAMPLES_H, _10S_H and _1MIN_H must be above 0 and in ascending order: "
            "samples are rolled up step by step"
        )

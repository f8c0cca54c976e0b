"""What ``manage.py check --deploy`` says about proxies."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core import checks

EVERYBODY = checks.Warning(
    "EDGEWISE_TRUSTED_PROXIES trusts every address, so anybody can claim any address.",
    hint="Name the proxy's address or network.",
    id="edgewise.W001",
)
NONE_NAMED = checks.Warning(
    "The site is https, but EDGEWISE_TRUSTED_PROXIES names no proxy.",
    hint="Name the proxy that terminates TLS. Else all visitors share one limit of attempts.",
    id="edgewise.W002",
)
UVICORNS = checks.Warning(
    "FORWARDED_ALLOW_IPS is set, which this site does not follow.",
    hint="Set EDGEWISE_TRUSTED_PROXIES, and start uvicorn with --no-proxy-headers.",
    id="edgewise.W003",
)


@checks.register(checks.Tags.security, deploy=True)
def check_proxies(**_: Any) -> list[checks.CheckMessage]:
    """Proxies that everybody could be, or none although the site's address is https."""
    is_https = settings.PUBLIC_URL.startswith("https://")
    faults = [
        (EVERYBODY, any(proxies.prefixlen == 0 for proxies in settings.TRUSTED_PROXIES)),
        (NONE_NAMED, is_https and not settings.TRUSTED_PROXIES),
        (UVICORNS, bool(os.environ.get("FORWARDED_ALLOW_IPS"))),
    ]
    return [message for message, applies in faults if applies]

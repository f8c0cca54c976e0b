"""What is wrong with a server's certificate, and what to do."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone

from workers.agent.http.presented_certificate import Presented, look_at

# Codes of OpenSSL's X509_verify_cert (x509_vfy.h).
NOT_YET_VALID, EXPIRED, WRONG_HOST, WRONG_ADDRESS = 9, 10, 62, 64
CLOCK_IS_WRONG = timedelta(hours=1)  # no certificate is refused for less


def certificate_problem(error: BaseException | None, url: str = "") -> str:
    """Plain words for a certificate that was refused, also as a cause; '' for other errors.

    ``url``: the server's, to look at the dates in its certificate and at its clock.
    """
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    if error is None:
        return ""
    code = error.verify_code
    if code in (EXPIRED, NOT_YET_VALID):
        return _date_problem(code == EXPIRED, datetime.now(timezone.utc), look_at(url))
    if code in (WRONG_HOST, WRONG_ADDRESS):
        return (
            f"the server's certificate is for another name ({error.verify_message}); use the "
            "name that is in the certificate"
        )
    return "the server's certificate is not trusted; set EDGEWISE_CA_FILE to its authority's file"


def _date_problem(has_expired: bool, now: datetime, presented: Presented | None) -> str:
    """An expired certificate and a wrong clock look alike, but for the server's own clock."""
    today = now.date()
    if presented is None:
        fault = "has expired" if has_expired else "is not valid yet"
        return (
            f"the server's certificate {fault}, and this device's clock says {today}; renew the "
            "certificate, or set the clock if it is wrong"
        )
    begins, ends = presented.begins.date(), presented.ends.date()
    server_time = presented.server_time
    if server_time is not None and abs(server_time - now) > CLOCK_IS_WRONG:
        return (
            f"this device's clock is wrong: it says {_text(now)}, and the server's says "
            f"{_text(server_time)}; set the clock (the certificate is valid from {begins} until "
            f"{ends})"
        )
    if has_expired:
        return (
            f"the server's certificate ended on {ends}, and this device's clock says {today}; "
            "renew the certificate, or set the clock if it is wrong"
        )
    return (
        f"the server's certificate is valid from {begins}, and this device's clock says {today}; "
        "set the clock if it is wrong, or that of the machine that made the certificate"
    )


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")

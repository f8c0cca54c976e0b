"""Django's password hashers, of which few may run at once.

Argon2 takes 100 MB while it hashes. Whoever hashes or checks a password goes through here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth.hashers import Argon2PasswordHasher, PBKDF2PasswordHasher

from webapp.common.address_limits import TooManyRequests

HASHES_AT_ONCE = 4
# So many more may wait; each has a thread and perhaps a database connection.
WAITING = 4
WAIT_S = 2.0
RETRY_AFTER_S = 5.0
BUSY = "this site is checking many passwords now"

_slots = threading.Semaphore(HASHES_AT_ONCE)
_places = threading.Semaphore(HASHES_AT_ONCE + WAITING)


@contextmanager
def hashing_slot() -> Iterator[None]:
    """One of this process's HASHES_AT_ONCE. Raises TooManyRequests where none is free soon."""
    if not _places.acquire(blocking=False):
        raise TooManyRequests(BUSY, RETRY_AFTER_S)
    try:
        if not _slots.acquire(timeout=WAIT_S):
            raise TooManyRequests(BUSY, RETRY_AFTER_S)
        try:
            yield
        finally:
            _slots.release()
    finally:
        _places.release()


class BoundedArgon2(Argon2PasswordHasher):
    def encode(self, password: str, salt: str, *args: Any, **kwargs: Any) -> str:
        with hashing_slot():
            return super().encode(password, salt, *args, **kwargs)

    def verify(self, password: str, encoded: str) -> bool:
        with hashing_slot():
            return super().verify(password, encoded)


class BoundedPBKDF2(PBKDF2PasswordHasher):
    """Its ``verify`` calls ``encode``."""

    def encode(self, password: str, salt: str, *args: Any, **kwargs: Any) -> str:
        with hashing_slot():
            return super().encode(password, salt, *args, **kwargs)

"""Derived seeds: every process makes the same random choices for the same purpose."""

from __future__ import annotations

import hashlib


def derive(seed: int, *labels: str | int) -> int:
    """Return a seed in [0, 2**63) for one purpose, the same on every machine.

    ``labels`` name the purpose, for example ``derive(7, "train", round_number, slot)``.
    """
    text = "\x1f".join([str(seed), *(str(label) for label in labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

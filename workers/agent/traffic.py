"""Bytes this process sent and received by HTTP, heads included, counted where they leave it.

What TLS and TCP add is not in it.
"""

from __future__ import annotations


class Traffic:
    """Running totals in bytes."""

    def __init__(self) -> None:
        self.up = 0
        self.down = 0

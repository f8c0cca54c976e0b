"""Fixtures of ``tests.federation``."""

from tests.federation import federation, tiny_model

__all__ = ["federation", "tiny_model"]

"""Fixtures of ``tests.federation`` and ``tests.line.site``."""

from tests.federation import federation, tiny_model
from tests.line.site import site, site_processes

__all__ = ["federation", "site", "site_processes", "tiny_model"]

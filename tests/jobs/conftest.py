"""Fixtures of ``tests.federation`` and ``tests.jobs.nodes``."""

from tests.federation import federation, tiny_model
from tests.jobs.nodes import larger, node, nodes

__all__ = ["federation", "larger", "node", "nodes", "tiny_model"]

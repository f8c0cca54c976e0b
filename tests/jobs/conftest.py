"""Fixtures of ``tests.federation``, ``tests.jobs.hubs`` and ``tests.jobs.nodes``."""

from tests.federation import federation, tiny_model
from tests.jobs.hubs import hub
from tests.jobs.nodes import larger, node, nodes

__all__ = ["federation", "hub", "larger", "node", "nodes", "tiny_model"]

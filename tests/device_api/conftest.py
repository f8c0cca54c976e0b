"""Fixtures of ``tests.federation``, and of ``assignments`` and ``uploads`` here."""

from tests.device_api.assignments import training
from tests.device_api.uploads import content, pi, work
from tests.federation import federation, tiny_model

__all__ = ["content", "federation", "pi", "tiny_model", "training", "work"]

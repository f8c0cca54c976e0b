"""A job in its first round of training, and what a refused call answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.federation import Federation


def detail(answer: Any, status: int) -> str:
    """The reason of a refusal, as problem details."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    values = answer.json()
    assert values["status"] == status
    return str(values["detail"])


@pytest.fixture
def training(federation: Federation) -> Federation:
    """Two devices whose job has just offered its first round of training."""
    federation.devices("pi-kitchen", "pi-porch")
    federation.started()
    return federation

"""A job in its first round of training, and what a refused frame or call answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.device import FrameAnswer
from tests.federation import Federation


def detail(answer: Any, status: int) -> str:
    """The reason of a refused frame, or of a refused call as problem details."""
    assert answer.status_code == status, answer.content
    values = answer.json()
    if isinstance(answer, FrameAnswer):
        assert set(values) == {"detail"}
    else:
        assert answer["Content-Type"] == "application/problem+json"
        assert values["status"] == status
    return str(values["detail"])


@pytest.fixture
def training(federation: Federation) -> Federation:
    """Two devices whose job has just offered its first round of training."""
    federation.devices("pi-kitchen", "pi-porch")
    federation.started()
    return federation

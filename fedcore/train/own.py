"""What a device has of a job beside the global weights and its examples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedcore.distill.lesson import Lesson


@dataclass(frozen=True)
class Own:
    """What a device keeps of a job beside the weights, and what else the server sends it.

    ``folder`` holds its private files of this job (None: it has nowhere to keep any), ``state`` is
    the server's state before the round, where the strategy serves it, ``lesson`` what its parent
    teaches it where models speak to each other over bridge samples.
    """

    folder: Path | None = None
    state: Path | None = None
    lesson: Lesson | None = None

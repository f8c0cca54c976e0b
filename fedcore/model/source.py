"""Where a model's files are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are. ``name`` is what the specification says."""

    name: str
    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((self.folder / "config.json").read_text("utf-8"))
        return values

    @property
    def tied(self) -> bool:
        """True where the output layer is the embedding, as in T5 1.0 (not in FLAN-T5)."""
        return bool(self.config.get("tie_word_embeddings", True))

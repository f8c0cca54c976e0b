"""The agent with training switched off: ``python -m benchmarks.orchestration.echo run ...``.

Everything else is the agent's: its line, its Celery worker, accept, download, upload, report and
measurements. An update holds the same small pseudo-random numbers in each round, so that nothing
on its way can leave it out or squeeze it.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from fedcore.formats.frame_header import FrameHeader, read_header
from workers.agent.agent_settings import AgentSettings
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.contract import Callbacks, CannotDo, Outcome, Received
from workers.agent.cli import main

BLOCK_BYTES = 1 << 20
EXAMPLES = 100
TRAINED: dict[str, Any] = {"loss": 1.0, "steps": 0}
SCORES: dict[str, Any] = {"loss": 1.0, "rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}


class EchoTrainer:
    """Answers at once. It knows no torch, so its process is as small as the agent can be."""

    def train(
        self, work: AssignedWork, received: Received, update: Path, callbacks: Callbacks
    ) -> Outcome:
        del callbacks
        digest, size = hashlib.sha256(), 0
        with update.open("wb") as out:
            for piece in update_pieces(read_header(received.weights), work.update_meta):
                out.write(piece)
                digest.update(piece)
                size += len(piece)
        return Outcome(EXAMPLES, dict(TRAINED), (digest.hexdigest(), size))

    def evaluate(self, work: AssignedWork, weights: Path, callbacks: Callbacks) -> Outcome:
        del work, weights, callbacks
        return Outcome(EXAMPLES, dict(SCORES))

    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, callbacks: Callbacks
    ) -> Outcome:
        del work, updates, update
        raise CannotDo("a device that trains nothing folds nothing")


@cache
def _block() -> bytes:
    """The same numbers in every process."""
    numbers = random.Random(0)
    count = BLOCK_BYTES // 4
    return struct.pack(f"<{count}f", *(numbers.uniform(-1e-4, 1e-4) for _ in range(count)))


def update_pieces(shape_of: FrameHeader, meta: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The frame of an update with another frame's tensors."""
    yield frame_head(shape_of, meta)
    remaining, block = shape_of.size - shape_of.data_start, memoryview(_block())
    while remaining:
        piece = block[: min(remaining, BLOCK_BYTES)]
        yield piece
        remaining -= len(piece)


def frame_head(shape_of: FrameHeader, meta: Mapping[str, str]) -> bytes:
    """The head of a frame with another's tensors and its own metadata."""
    values: dict[str, Any] = {"__metadata__": {"format": "pt", **meta}}
    for name, entry in sorted(shape_of.tensors.items(), key=lambda item: item[1].start):
        values[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.end],
        }
    raw = json.dumps(values, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw


def make_trainer(settings: AgentSettings, profile: dict[str, Any]) -> EchoTrainer:
    del settings, profile
    return EchoTrainer()


if __name__ == "__main__":
    sys.exit(main(trainer="benchmarks.orchestration.echo:make_trainer"))

"""Train one configuration in its own process: seconds per step and peak memory.

``python -m benchmarks.plan_run SPEC.json WEIGHTS FOLDER`` prints one line of JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.memory_run import forget_peak, resident_peak
from fedcore.architecture.sizes import architecture_of
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec

FIRST = 1  # skipped steps, which create primitives and moments
BATCHES = 2  # distinct batches of examples


@dataclass(frozen=True)
class StepMeasurement:
    """``step_s`` is the median; bytes are of the whole process, on an accelerator what torch
    allocated there (``imported`` is 0 then)."""

    step_s: float
    steps: int
    imported: int
    peak_bytes: int


def measure(spec: JobSpec, weights: Path, folder: Path) -> StepMeasurement:
    """Train as a device does, on examples of the longest permitted length."""
    import peft  # noqa: F401 - all that a device imports, so that it counts as such
    import torch
    import transformers  # noqa: F401

    from benchmarks.random_model import random_examples
    from fedcore.compute.device import peak_memory_bytes
    from fedcore.methods.session import Session
    from fedcore.train.telemetry import Hooks

    session = Session(folder / "cache")
    on_cpu = session.device.type == "cpu"
    imported = resident_peak() if on_cpu else 0
    peaks: list[int] = []
    times: list[float] = []

    def between() -> bool:
        """Called before every step."""
        if not on_cpu:
            torch.cuda.synchronize()
        elif not times:
            peaks.append(resident_peak())
            forget_peak()
        times.append(time.perf_counter())
        return False

    sizes = architecture_of(spec.model.name)
    assert sizes is not None
    lengths = (spec.data.max_source_tokens, spec.data.max_target_tokens)
    count = BATCHES * spec.train.batch_size
    examples = random_examples(folder / "examples", count, lengths, sizes.vocab)
    session.train(spec, weights, examples, 0, 0, Hooks(should_stop=between))
    peaks.append(resident_peak() if on_cpu else peak_memory_bytes(session.device))
    steps = [after - before for before, after in pairwise(times)][FIRST:]
    return StepMeasurement(statistics.median(steps), len(steps), imported, max(peaks))


def main(arguments: list[str]) -> int:
    spec, weights, folder = arguments
    values = parse_spec(json.loads(Path(spec).read_text("utf-8")))
    print(json.dumps(asdict(measure(values, Path(weights), Path(folder)))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

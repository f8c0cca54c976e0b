"""Train once in its own process and measure the peak memory (``benchmarks memory``).

``python -m benchmarks.memory_run SPEC.json WEIGHTS FOLDER`` prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from fedcore.architecture.sizes import architecture_of
from fedcore.compute.device import peak_memory_bytes
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec

OUT_OF_MEMORY = 3  # exit status
SHORT = (MemoryError, torch.OutOfMemoryError)
NO_MEMORY = "DefaultCPUAllocator"  # torch's CPU allocator raises a plain RuntimeError


@dataclass(frozen=True)
class Peaks:
    """Bytes. On a CPU of the whole process: when everything is imported, the most until the model
    is loaded, the most while it trains. On an accelerator what torch allocated there.
    """

    imported: int
    loading: int
    training: int
    seconds: float
    precision: str
    device: str

    @property
    def peak(self) -> int:
        return max(self.loading, self.training)


def resident_peak() -> int:
    """Peak resident bytes since the start or the last ``forget_peak``.

    Not ru_maxrss: a child inherits its parent's.
    """
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status names no VmHWM; this measurement needs Linux")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", "utf-8")


def measure(spec: JobSpec, weights: Path, folder: Path) -> Peaks:
    """Train as a device does; ``folder`` is for its cache."""
    import peft  # noqa: F401 - all that a device imports, so that it counts as such
    import transformers  # noqa: F401

    from benchmarks.random_model import random_examples
    from fedcore.methods.session import Session
    from fedcore.train.telemetry import Hooks

    session = Session(folder / "cache")
    device = session.device
    on_cpu = device.type == "cpu"
    if not on_cpu:
        torch.cuda.init()
    imported = resident_peak() if on_cpu else peak_memory_bytes(device)
    loading: list[int] = []

    def between() -> bool:
        """Called before the first step, after the model is loaded."""
        if not loading:
            loading.append(resident_peak() if on_cpu else peak_memory_bytes(device))
            if on_cpu:
                forget_peak()
        return False

    sizes = architecture_of(spec.model.name)
    assert sizes is not None
    lengths = (spec.data.max_source_tokens, spec.data.max_target_tokens)
    examples = random_examples(folder / "examples", spec.train.batch_size, lengths, sizes.vocab)
    update = session.train(spec, weights, examples, 0, 0, Hooks(should_stop=between))
    training = resident_peak() if on_cpu else peak_memory_bytes(device)
    seconds = update.summary.seconds / update.steps
    return Peaks(imported, loading[0], training, seconds, spec.train.precision, str(device))


def main(arguments: list[str]) -> int:
    """0, or OUT_OF_MEMORY."""
    spec, weights, folder = arguments
    values = json.loads(Path(spec).read_text("utf-8"))
    try:
        peaks = measure(parse_spec(values), Path(weights), Path(folder))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, SHORT) and NO_MEMORY not in str(error):
            raise
        print(error, file=sys.stderr)
        return OUT_OF_MEMORY
    print(json.dumps(asdict(peaks)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``python -m benchmarks memory``: a real process on a small model, and estimates of others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import memory, memory_run
from benchmarks.__main__ import main
from benchmarks.random_model import random_examples, random_model
from fedcore.architecture.sizes import Architecture
from fedcore.errors import TrainingError
from fedcore.model.load import load_base, resolve

SIZES = Architecture(256, 32, 8, 1024, 4, 4, 3000)
LOADING = """
import sys, torch, peft, transformers
from benchmarks.memory_run import resident_peak
from fedcore.model.load import load_base
before = resident_peak()
load_base(sys.argv[1], torch.bfloat16, sys.argv[2])
print(resident_peak() - before)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(SIZES, tmp_path_factory.mktemp("models") / "examples")


def test_random_model_has_requested_sizes(folder: Path) -> None:
    base = load_base(str(folder), torch.float32)
    assert Architecture.from_config(resolve(str(folder)).config) == SIZES
    assert sum(item.numel() for item in base.model.parameters()) == SIZES.parameters()
    assert not torch.equal(base.model.lm_head.weight, base.model.shared.weight)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    random_model(SIZES, folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_random_examples_have_requested_lengths(tmp_path: Path) -> None:
    examples = random_examples(tmp_path, 3, (20, 6), 100)
    assert [item.lengths for item in examples.train] == [(20, 6)] * 3
    assert all(item.source[-1] == item.target[-1] == 1 for item in examples.train)
    assert max(int(item.source.max()) for item in examples.train) < 100


def test_nf4_loading_fits_less_than_the_model(tmp_path: Path) -> None:
    """60 million weights: 240 MB of fp32 in the file, 34 MB in nf4."""
    model = random_model(Architecture(768, 64, 12, 2048, 4, 4, 3000), tmp_path / "model")
    size = (model / "model.safetensors").stat().st_size
    command = [sys.executable, "-c", LOADING, str(model), "nf4"]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert size > 2.2e8 and grown < 0.5 * size


def table(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["memory", "--batch", "2", "--lengths", "32", "8", *options]) == 0
    return capsys.readouterr().out


def test_memory_measures_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(memory.KNOWN, "google/flan-t5-small", SIZES)
    out = tmp_path / "figures.json"
    output = table(
        capsys, "--models", "small", "--methods", "lora", "--bases", "int8",
        "--micro-batches", "2", "--folder", str(tmp_path), "--json", str(out),
    )  # fmt: skip
    (cell,) = json.loads(out.read_text())
    assert (cell["method"], cell["base"]) == ("LoRA r=8", "int8")
    peaks = cell["measured"]
    assert peaks["training"] > peaks["imported"] > 1e8 and peaks["seconds"] > 0
    assert peaks["loading"] > peaks["imported"] and peaks["precision"] == "bf16"
    assert memory.SIGN not in output and "imported code alone" in output


def test_memory_estimates_what_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 1e9)
    output = table(capsys, "--models", "xl", "--micro-batches", "1", "--bases", "fp32", "nf4")
    rows = [line for line in output.splitlines() if line.startswith("| xl")]
    assert len(rows) == 3 and all(memory.SIGN in row for row in rows)
    full, lora, _ = (row.split(memory.SIGN) for row in rows)
    assert float(full[1].split()[0]) > 40  # 2.85 billion weights, gradients and two moments
    assert float(lora[1].split()[0]) > 11.4 > 5 > float(lora[2].split()[0])


def test_failed_process_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = memory.argparse.Namespace(steps=1, batch=1, lengths=(32, 8))
    spec = memory.spec_of(args, ("small", "LoRA r=8", "fp32", 1), Path("nano"))
    assert memory._measure(spec, tmp_path, 0.001) is None
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TrainingError, match="ended with 1: no error output"):
        memory._measure(spec, tmp_path, 60)


def test_out_of_memory_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator's own error for memory that no machine has; other errors are not hidden."""
    job = tmp_path / "spec.json"
    job.write_text("{}")
    arguments = [str(job), "weights", str(tmp_path)]
    monkeypatch.setattr(memory_run, "measure", lambda *_: torch.empty(1 << 55))
    assert memory_run.main(arguments) == memory_run.OUT_OF_MEMORY
    monkeypatch.setattr(memory_run, "measure", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        memory_run.main(arguments)

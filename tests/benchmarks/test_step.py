"""The step bench compares like with like: the same examples, and losses that agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import step_curves
from benchmarks.random_model import random_model, varied_examples
from benchmarks.step import variants
from benchmarks.step_loops import StepTask, Variant, turn
from fedcore.architecture.sizes import Architecture
from fedcore.spec.parse import parse_spec

SIZES = Architecture(32, 8, 4, 64, 2, 2, 3159)
LENGTHS = [(20, 6), (9, 4), (31, 5), (12, 6), (25, 3), (17, 6)]


def task_of(folder: Path, kind: str) -> StepTask:
    spec = parse_spec(
        {
            "model": {"name": str(random_model(SIZES, folder / "model"))},
            "adapter": {"kind": kind, "dropout": 0.0},
            "train": {"batch_size": 2, "learning_rate": 1e-3},
        }
    )
    return StepTask(spec, varied_examples(folder / "examples", LENGTHS, SIZES.vocab).train, SIZES)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_loops_give_equal_losses_on_equal_examples(tmp_path: Path, kind: str) -> None:
    task = task_of(tmp_path, kind)
    plain = turn(Variant("plain", "plain", "fp32", 0.0, pages=False), task)
    fast = turn(Variant("fast", "own", "fp32", 0.0), task)
    assert (plain.steps, plain.tokens, plain.flops) == (fast.steps, fast.tokens, fast.flops)
    assert plain.tokens == sum(map(sum, LENGTHS)) and len(fast.losses) == 3
    assert fast.losses == pytest.approx(plain.losses, rel=1e-4)
    assert set(plain.phase_s) <= set(fast.phase_s)
    assert fast.seconds > 0 and plain.memory_bytes >= 0


def test_first_variant_is_the_plain_loop() -> None:
    names = [variant.name for variant in variants("bf16", every=True)]
    assert len(set(names)) == len(names) and names[0] == "plain loop"
    assert variants("bf16", every=False) == variants("bf16", every=True)[:3]


def test_curves_accept_a_data_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step_curves, "STEPS", 4)
    monkeypatch.setattr(step_curves, "BATCH", 2)
    monkeypatch.setattr(step_curves, "SEEDS", (0, 1))
    data = tmp_path / "own.jsonl"
    row = '{"talk": "the ward was full on friday and the doctor late", "brief": "a full ward"}\n'
    data.write_text("".join(row.replace("friday", f"day {n}") for n in range(40)))
    assert step_curves.run(f"{data}:talk,brief") == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| lora")]
    assert len(rows) == 2 and all("+-" in line for line in rows)

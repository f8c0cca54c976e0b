"""Each rule of averaging adapters in a real federation: what devices train on is what is served."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fedcore.architecture.sizes import architecture_of
from fedcore.errors import ModelError
from fedcore.model.export_folder import export_adapter, export_merged
from fedcore.model.initial import write_initial
from fedcore.plan.cost.workload import Workload
from fedcore.simulate.__main__ import main
from fedcore.simulate.federation import simulate
from fedcore.simulate.results import global_file
from fedcore.spec.job import JobSpec
from fedcore.spec.options.lowrank import LOW_RANK_RULES, LowRankRule
from fedcore.spec.overrides import PREFIX, factor_name, trained_shapes
from fedcore.train.datasets import Source
from fedcore.train.loaded_model import LoadedModel
from fedcore.wire.frame import FrameReader
from tests.fedcore.conftest import sentences, spec_of, write_jsonl

REFACTORING = [str(rule) for rule, row in LOW_RANK_RULES.items() if row.refactors]
MERGING = [str(rule) for rule, row in LOW_RANK_RULES.items() if row.merges_into_base]

CPU, FP32 = torch.device("cpu"), torch.float32
NAMES = ("attic", "barn", "kitchen")
QUERY = "encoder.block.0.layer.0.SelfAttention.q"


def mixed(rule: str) -> dict[str, Any]:
    different = {"ranks": "1,3,2", "alphas": "2,3,8", "modules": "q+v,q,q+v"}
    return different if rule in REFACTORING else {}


def ran(model: Path, folder: Path, **changes: Any) -> tuple[JobSpec, Path, list[Any]]:
    """A finished job of three devices, and its last global weights."""
    spec = spec_of(model, evaluation={"every": 0, "initial": False}, **changes)
    devices = {
        name: Source(str(write_jsonl(folder / f"{name}.jsonl", sentences(seed, 16 + 2 * seed))))
        for seed, name in enumerate(NAMES)
    }
    results = simulate(spec, devices, folder / "sim")
    return spec, global_file(folder / "sim", spec.rounds), results


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[5, 6, 7, 1]])
    with torch.no_grad():
        actual: torch.Tensor = model.eval()(input_ids=ids, decoder_input_ids=ids).logits
    return actual


@pytest.mark.parametrize("rule", list(map(str, LowRankRule)))
def test_merged_model_scores_as_evaluated(tiny: Path, tmp_path: Path, rule: str) -> None:
    from transformers import AutoModelForSeq2SeqLM

    adapter = {"rank": 3, "aggregation": rule, **mixed(rule)}
    spec, weights, results = ran(tiny, tmp_path, adapter=adapter)
    assert len({result.sha256 for result in results}) == 3
    for result in results[1:]:
        error = result.fold.aggregation_error
        assert error is not None and (error < 1e-6) == (rule not in ("fedit", "flexlora"))
    loaded = LoadedModel.of(spec, FP32)
    loaded.load_weights(spec, weights, CPU)
    merged = AutoModelForSeq2SeqLM.from_pretrained(export_merged(spec, weights, tmp_path / "m"))
    untuned = AutoModelForSeq2SeqLM.from_pretrained(tiny)
    assert torch.allclose(logits(loaded.model), logits(merged), atol=1e-5)
    assert not torch.allclose(logits(merged), logits(untuned), atol=1e-4)


@pytest.mark.parametrize("rule", MERGING)
def test_base_is_restored_after_another_job(tiny: Path, tmp_path: Path, rule: str) -> None:
    """A session that trains for two jobs in turn gives each the base it knows."""
    spec, weights, _ = ran(tiny, tmp_path, adapter={"rank": 3, "aggregation": rule})
    loaded = LoadedModel.of(spec, FP32)
    first = global_file(tmp_path / "sim", 0)
    loaded.load_weights(spec, first, CPU)
    before = logits(loaded.model)
    loaded.load_weights(spec, weights, CPU)
    assert not torch.equal(logits(loaded.model), before)
    loaded.load_weights(spec, first, CPU)
    assert torch.equal(logits(loaded.model), before)


@pytest.mark.parametrize("rule", ["fedit", "ffa", "flexlora"])
def test_adapter_loads_in_plain_peft(tiny: Path, tmp_path: Path, rule: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM

    left_out = QUERY.replace("block.0", "block.1")
    adapter = {"rank": 3, "aggregation": rule, "pattern": f"{QUERY}=1,{left_out}=0"}
    spec, weights, _ = ran(tiny, tmp_path, adapter=adapter, rounds=1)
    shapes = FrameReader(weights).shapes
    assert shapes[factor_name(QUERY, "A")][0] == 1
    assert not any(left_out in name for name in shapes)
    base = AutoModelForSeq2SeqLM.from_pretrained(tiny)
    theirs = PeftModel.from_pretrained(base, export_adapter(spec, weights, tmp_path / "adapter"))
    assert not any(name == PREFIX + left_out + ".lora_A" for name, _ in theirs.named_modules())
    loaded = LoadedModel.of(spec, FP32)
    loaded.load_weights(spec, weights, CPU)
    assert torch.allclose(logits(theirs), logits(loaded.model), atol=1e-6)


@pytest.mark.parametrize("rule", MERGING)
def test_incomplete_adapter_is_not_exported(tiny: Path, tmp_path: Path, rule: str) -> None:
    spec = spec_of(tiny, adapter={"aggregation": rule})
    with pytest.raises(ModelError, match="take the whole model"):
        export_adapter(spec, tmp_path / "g", tmp_path / "adapter")


def test_low_rank_job_is_deterministic(tiny: Path, tmp_path: Path) -> None:
    adapter = {"rank": 3, "aggregation": "flexlora", **mixed("flexlora")}
    actual = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        actual.append(ran(tiny, tmp_path / name, adapter=adapter)[2][-1].sha256)
    assert actual[0] == actual[1]


def test_refactoring_rules_have_no_residual(tiny: Path, tmp_path: Path) -> None:
    wire, adapter = {"uplink": "int8"}, {"rank": 3, "aggregation": "flexlora", "ranks": "1,3,2"}
    _, _, results = ran(tiny, tmp_path, adapter=adapter, wire=wire)
    assert len(results) == 3
    assert not list((tmp_path / "sim").glob("residuals-*"))


def test_command_prints_the_low_rank_rule(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", sentences(1, 40))
    words = ["--data", str(data), "--model", str(tiny), "--rounds", "1", "--local-steps", "1"]
    words += ["--adapter-rule", "flexlora", "--ranks", "1,2,4", "--max-validation-examples", "2"]
    assert main(words) == 0
    output = capsys.readouterr().out
    assert "adapters of rank 4 as served, 1,2,4 on the devices, averaged by flexlora" in output
    assert "% off their mean product" in output


@pytest.mark.parametrize("targets", ["q,v", "k,o,wi_0,wo"])
@pytest.mark.parametrize("pattern", ["", f"{QUERY}=1"])
def test_planned_bytes_equal_sent_bytes(
    tiny: Path, tmp_path: Path, targets: str, pattern: str
) -> None:
    pattern = pattern if "q" in targets else ""
    adapter = {"rank": 3, "aggregation": "ffa", "targets": targets.split(","), "pattern": pattern}
    spec = spec_of(tiny, adapter=adapter)
    write_initial(spec, tmp_path / "g")
    shapes = FrameReader(tmp_path / "g").shapes
    sizes = architecture_of(str(tiny))
    assert sizes is not None
    actual = Workload.of(spec, sizes, "fp32")
    numbers = {name: math.prod(shape) for name, shape in trained_shapes(spec, shapes).items()}
    assert numbers and all(".lora_B." in name for name in numbers)
    assert actual.update_weights == sum(numbers.values())
    assert actual.served_weights == sum(math.prod(shape) for shape in shapes.values())

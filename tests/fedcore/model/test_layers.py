"""The last decoder layers as what trains: what travels, what it costs, that it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.random_model import random_model
from benchmarks.saved_activations import SHAPES as KEPT_SHAPES
from benchmarks.saved_activations import saved_bytes, step_spec
from fedcore.architecture.sizes import Architecture, architecture_of
from fedcore.errors import ModelError, SpecError
from fedcore.formats.frame_header import read_header
from fedcore.methods.session import Session
from fedcore.model.adapters import attach
from fedcore.model.export_folder import export_adapter, export_merged
from fedcore.model.initial import write_initial
from fedcore.model.load import Base, load_base
from fedcore.model.weights import ModelSource
from fedcore.plan.cost.kinds.table import payload_bytes
from fedcore.plan.cost.memory import memory
from fedcore.plan.cost.step_flops import layers_cost
from fedcore.plan.cost.workload import BatchShape, Workload
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.spec.overrides import trained_shapes
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source
from fedcore.wire.frame import FrameReader, write_frame
from tests.fedcore.architecture.test_flops import SHAPES, build, counted
from tests.fedcore.conftest import sentences, spec_of, write_jsonl
from tests.fedcore.train.learning import trained_round

FP32 = torch.float32


@pytest.mark.parametrize("last", [1, 2])
@pytest.mark.parametrize("name", SHAPES)
def test_flops_and_sizes_agree_with_torch(name: str, last: int) -> None:
    changes, s, t = SHAPES[name]
    model = build(changes)
    sizes = Architecture.from_config(model.config.to_dict())
    adapter = AdapterSpec(kind="layers", last_layers=last)
    tuned = attach(Base(model, None, "", ModelSource("m", None)), adapter, 0)
    training = layers_cost(sizes, last).training
    assert training.of([(s, t)] * 2) == pytest.approx(counted(tuned, s, t), rel=0.01)
    trained = sum(item.numel() for item in tuned.parameters() if item.requires_grad)
    assert sizes.layers_parameters(last) == trained
    assert payload_bytes(sizes, AdapterSpec(kind="layers", last_layers=last)) == 4 * trained


@pytest.mark.parametrize("last", [1, 2])
def test_only_last_layers_are_in_the_artefact(tiny: Path, tmp_path: Path, last: int) -> None:
    spec = spec_of(tiny, adapter={"kind": "layers", "last_layers": last})
    info = write_initial(spec, tmp_path / "g")
    frame, files = FrameReader(tmp_path / "g"), load_base(str(tiny), FP32).model.state_dict()
    blocks = {name.split(".")[2] for name in frame}
    assert blocks == {str(number) for number in range(2 - last, 2)}
    assert all(name.startswith("decoder.block.") for name in frame)
    assert all(torch.equal(frame[name], files[name]) for name in frame)
    assert info.trainable_parameters == sum(frame[name].numel() for name in frame)
    source = Source(str(write_jsonl(tmp_path / "rows.jsonl", sentences(3, 24))))
    update = Session(tmp_path / "cache", 1).train(spec, tmp_path / "g", source, 1, 0)
    shapes = trained_shapes(spec, read_header(tmp_path / "g").shapes)
    assert {name: tuple(item.shape) for name, item in update.tensors.items()} == shapes
    assert all(bool(item.any()) for item in update.tensors.values())


@pytest.mark.parametrize("kernels", ["fast", "plain"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_kernels_learn_in_both_precisions(
    tiny: Path, tmp_path: Path, kernels: str, precision: str
) -> None:
    spec = spec_of(
        tiny,
        adapter={"kind": "layers", "last_layers": 1},
        train={
            "local_steps": 20, "batch_size": 8, "kernels": kernels, "precision": precision,
            "learning_rate": 0.01, "dropout": 0.0,
        },
    )  # fmt: skip
    result = trained_round(spec, tmp_path)
    assert result.after < result.before
    assert result.again == result.before, "what was trained stayed in the base"


def test_other_layer_count_starts_from_the_files(tiny: Path, tmp_path: Path) -> None:
    source = Source(str(write_jsonl(tmp_path / "rows.jsonl", sentences(3, 24))))
    session, specs = Session(tmp_path / "cache", 1), []
    for last in (2, 1):
        specs.append(spec_of(tiny, adapter={"kind": "layers", "last_layers": last}))
        write_initial(specs[-1], tmp_path / str(last))
    alone = Session(tmp_path / "cache", 1).evaluate(specs[1], tmp_path / "1", source)
    session.train(specs[0], tmp_path / "2", source, 1, 0)
    assert session.evaluate(specs[1], tmp_path / "1", source).loss == alone.loss


def test_tuned_layers_export_as_a_whole_model(tiny: Path, tmp_path: Path) -> None:
    spec = spec_of(tiny, adapter={"kind": "layers", "last_layers": 1})
    write_initial(spec, tmp_path / "g")
    frame = FrameReader(tmp_path / "g")
    moved = {name: frame[name] + 0.5 for name in frame}
    write_frame(tmp_path / "h", moved, dict(frame.meta))
    out = export_merged(spec, tmp_path / "h", tmp_path / "out")
    tuned, base = (load_base(str(path), FP32).model.state_dict() for path in (out, tiny))
    changed = {name for name in base if not torch.equal(base[name], tuned[name])}
    assert changed == set(moved)
    assert all(torch.equal(tuned[name], moved[name]) for name in moved)
    with pytest.raises(ModelError, match="there is no adapter"):
        export_adapter(spec, tmp_path / "h", tmp_path / "adapter")


@pytest.mark.parametrize("kernels", ["fast", "plain"])
def test_memory_of_backward_pass_is_estimated(tmp_path: Path, kernels: str) -> None:
    """What autograd keeps of one more example, against the planner's activations."""
    width, inner, heads, forward, source, target, _ = KEPT_SHAPES[5]
    sizes = Architecture(width, inner, heads, forward, 3, 3, 64)
    model = random_model(sizes, tmp_path / "m")
    saved, planned = [], []
    for examples in (1, 2):
        plain = step_spec(model, kernels, "full", "fp32", examples, source, target)
        spec = parse_spec({**plain.to_dict(), "adapter": {"kind": "layers"}})
        saved.append(saved_bytes(spec, tmp_path))
        estimate = memory(Workload.of(spec, sizes, "fp32"), BatchShape(examples, source, target))
        planned.append(estimate.parts["activations"])
    assert planned[1] - planned[0] == pytest.approx(saved[1] - saved[0], rel=0.25)


def test_planner_counts_less_than_full_training() -> None:
    sizes = architecture_of("google/flan-t5-base")
    assert sizes is not None
    work = BatchShape(8, 256, 48)
    parts = {}
    for kind in ("layers", "full"):
        spec = parse_spec({"adapter": {"kind": kind}})
        method = Workload.of(spec, sizes, "bf16")
        parts[kind] = memory(method, work).parts
        assert method.served_weights == method.trained
    assert all(parts["layers"][part] < parts["full"][part] for part in parts["full"]
               if part not in ("logits", "runtime", "workspace"))  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "path", "fault"),
    [
        ({"adapter": {"kind": "layers", "last_layers": 4}}, "adapter.last_layers", "has \\(3\\)"),
        (
            {"adapter": {"kind": "layers"}, "model": {"base": "nf4"}},
            "model.base", "nf4 weights cannot train",
        ),
        ({"adapter": {"kind": "layers", "ranks": "4,8"}}, "adapter.ranks", "is about LoRA"),
    ],
)  # fmt: skip
def test_invalid_layer_options_are_refused(
    changes: dict[str, object], path: str, fault: str
) -> None:
    with pytest.raises(SpecError, match=fault) as error:
        parse_spec(changes)
    assert path in [item.path for item in error.value.faults]

"""Bottleneck adapters: what they compute, how they are counted, that all kernels know them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from benchmarks.random_model import random_model
from benchmarks.saved_activations import SHAPES as KEPT_SHAPES
from benchmarks.saved_activations import saved_bytes, step_spec
from fedcore.architecture.sizes import Architecture, architecture_of
from fedcore.errors import ModelError, WireError
from fedcore.methods.session import Session
from fedcore.model.adapters import attach, detach, set_shared, shared_parameters
from fedcore.model.export_folder import export_adapter, export_merged
from fedcore.model.initial import write_initial
from fedcore.model.kinds.bottleneck import bottleneck_shapes
from fedcore.model.load import Base, load_base, resolve
from fedcore.model.parameters import get_trainable
from fedcore.model.skeleton import skeleton
from fedcore.model.tuned import load_tuned
from fedcore.model.weights import ModelSource
from fedcore.plan.cost.kinds.table import payload_bytes
from fedcore.plan.cost.memory import memory
from fedcore.plan.cost.step_flops import lora_cost
from fedcore.plan.cost.workload import BatchShape, Workload
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source
from fedcore.train.kernels import KernelContext, kernels_of
from fedcore.wire.frame import FrameReader, write_frame
from tests.fedcore.architecture.test_flops import SHAPES, build, counted
from tests.fedcore.conftest import sentences, spec_of, write_jsonl
from tests.fedcore.train.learning import trained_round

FP32, CPU = torch.float32, torch.device("cpu")
NARROW = AdapterSpec(kind="bottleneck", width=6)
LORA = AdapterSpec(rank=3, targets=("q", "wo"), dropout=0.0)
IDS = torch.tensor([[5, 9, 12, 1]])


def adapted(tiny: Path, lora: AdapterSpec | None = None) -> torch.nn.Module:
    """The tiny model with adapters that really change it."""
    model = attach(load_base(str(tiny), FP32), NARROW, 4, lora)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3, generator=generator)
    return model


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, decoder_input_ids=IDS).logits


def test_fresh_bottleneck_is_identity_and_detaches(tiny: Path) -> None:
    base = load_base(str(tiny), FP32)
    bare = logits(base.model)
    model = attach(base, NARROW, 4)
    assert torch.equal(logits(model), bare)
    changed = logits(adapted(tiny))
    assert not torch.allclose(changed, bare, atol=1e-3)
    with torch.no_grad():
        for parameter in get_parameters(model).values():
            parameter.fill_(0.3)
    assert not torch.equal(logits(model), bare)
    off = detach(model)
    assert torch.equal(logits(off), bare)
    assert not any("bottleneck" in name for name, _ in off.named_parameters())
    again = attach(replace(base, model=off), LORA, 4)  # another job's adapter on the same base
    assert torch.equal(logits(again), bare)


def get_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return dict(shared_parameters(model, "bottleneck"))


def test_bottleneck_is_residual_of_down_gelu_up(tiny: Path) -> None:
    model = adapted(tiny)
    block = model.encoder.block[0].layer[-1].DenseReluDense
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    inner = block.wo(block.act(block.wi_0(x)) * block.wi_1(x))
    down, up = block.bottleneck.down, block.bottleneck.up
    expected = inner + gelu(inner @ down.weight.T + down.bias) @ up.weight.T + up.bias
    assert torch.allclose(block(x), expected, atol=1e-6)


@pytest.mark.parametrize("lora", [None, LORA], ids=["alone", "beside-lora"])
def test_artefact_names_ignore_a_surrounding_lora(
    tiny: Path, tmp_path: Path, lora: AdapterSpec | None
) -> None:
    spec = spec_of(tiny, adapter={"kind": "bottleneck", "width": 6}, seed=4)
    info = write_initial(spec, tmp_path / "g")
    model = attach(load_base(str(tiny), FP32), NARROW, 4, lora)
    frame, mine = FrameReader(tmp_path / "g"), get_parameters(model)
    assert set(frame) == set(mine) == set(bottleneck_shapes(skeleton(resolve(str(tiny))), 6))
    assert all(torch.equal(mine[name].detach(), frame[name]) for name in mine)
    assert all(parameter.requires_grad for parameter in mine.values())
    assert info.trainable_parameters == sum(item.numel() for item in mine.values())
    others = set(get_trainable(model)) - set(mine)
    assert bool(others) is (lora is not None) and all(".lora_" in name for name in others)
    wrong = {**{name: frame[name] for name in frame}, next(iter(frame)): torch.zeros(1)}
    with pytest.raises(WireError, match="mis-shaped"):
        set_shared(model, "bottleneck", wrong)


@pytest.mark.parametrize("targets", [(), ("q", "v"), ("wo",)], ids=lambda t: "-".join(t) or "alone")
@pytest.mark.parametrize("name", SHAPES)
def test_flops_agree_with_torch_within_one_percent(name: str, targets: tuple[str, ...]) -> None:
    changes, s, t = SHAPES[name]
    model = build(changes)
    sizes = Architecture.from_config(model.config.to_dict())
    lora = AdapterSpec(rank=4, targets=targets, dropout=0.0) if targets else None
    base = Base(model, None, "", ModelSource("m", None))
    tuned = attach(base, replace(NARROW, width=12), 0, lora)
    cost = lora_cost(sizes, 4 if targets else 0, targets, 12)
    assert cost.training.of([(s, t)] * 2) == pytest.approx(counted(tuned, s, t), rel=0.01)
    trained = sum(item.numel() for item in get_parameters(tuned).values())
    assert sizes.bottleneck_parameters(12) == trained
    assert payload_bytes(sizes, AdapterSpec(kind="bottleneck", width=12)) == 4 * trained


@pytest.mark.parametrize("lora", [None, LORA], ids=["alone", "beside-lora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_fast_kernels_agree_with_transformers(
    tiny: Path, tmp_path: Path, lora: AdapterSpec | None, checkpointing: bool
) -> None:
    model = adapted(tiny, lora).eval()
    source = Source(str(write_jsonl(tmp_path / "rows.jsonl", sentences(3, 16))))
    examples = Session(tmp_path / "cache", 1).prepare(spec_of(tiny), source).train
    results = []
    for name in ("plain", "fast"):
        kernels = kernels_of(name, KernelContext(model, CPU, FP32, 0.0, checkpointing, 0))
        assert type(kernels).__name__.lower() == name
        batch = kernels.load([examples[row] for row in range(6)])
        loss = kernels.loss(kernels.forward(batch, 0), batch)
        model.zero_grad()
        loss.backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        results.append((float(loss.detach()), grads))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for name, grad in results[0][1].items():
        assert float((grad - results[1][1][name]).norm()) <= 1e-3 * float(grad.norm()), name


@pytest.mark.parametrize("kernels", ["fast", "plain"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_kernels_learn_in_both_precisions(
    tiny: Path, tmp_path: Path, kernels: str, precision: str
) -> None:
    spec = spec_of(
        tiny,
        adapter={"kind": "bottleneck", "width": 8},
        train={
            "local_steps": 20, "batch_size": 8, "kernels": kernels, "precision": precision,
            "learning_rate": 0.02, "dropout": 0.0,
        },
    )  # fmt: skip
    result = trained_round(spec, tmp_path)
    assert set(result.update.tensors) == set(FrameReader(tmp_path / "g"))
    assert result.after < result.before
    assert all(delta.dtype == FP32 for delta in result.update.tensors.values())


def test_exported_folder_describes_the_adapter(tiny: Path, tmp_path: Path) -> None:
    spec = spec_of(tiny, adapter={"kind": "bottleneck", "width": 6})
    model = adapted(tiny)
    mine = {name: item.detach().clone() for name, item in get_parameters(model).items()}
    write_initial(spec, tmp_path / "first")
    write_frame(tmp_path / "g", mine, dict(FrameReader(tmp_path / "first").meta))
    folder = export_adapter(spec, tmp_path / "g", tmp_path / "out")
    loaded, tokenizer = load_tuned(folder)
    assert torch.equal(logits(loaded), logits(model))
    assert tokenizer.decode([3, 4]) == "anna ben"
    with pytest.raises(ModelError, match="no merged model; take the adapter"):
        export_merged(spec, tmp_path / "g", tmp_path / "merged")
    with pytest.raises(ModelError, match="is no folder of bottleneck adapters"):
        load_tuned(tmp_path)


@pytest.mark.parametrize("kernels", ["fast", "plain"])
def test_memory_of_backward_pass_is_estimated(tmp_path: Path, kernels: str) -> None:
    """What autograd keeps of one more example, against the planner's activations."""
    width, inner, heads, forward, source, target, layers = KEPT_SHAPES[7]
    model = random_model(
        Architecture(width, inner, heads, forward, layers, layers, 64), tmp_path / "m"
    )
    saved, planned = [], []
    for examples in (1, 2):
        plain = step_spec(model, kernels, "bottleneck", "fp32", examples, source, target)
        spec = parse_spec({**plain.to_dict(), "adapter": {"kind": "bottleneck"}})
        saved.append(saved_bytes(spec, tmp_path))
        sizes = architecture_of(str(model))
        assert sizes is not None
        estimate = memory(Workload.of(spec, sizes, "fp32"), BatchShape(examples, source, target))
        planned.append(estimate.parts["activations"])
    assert planned[1] - planned[0] == pytest.approx(saved[1] - saved[0], rel=0.2)


def test_planner_predicts_payload_bytes() -> None:
    sizes = architecture_of("nano")
    assert sizes is not None
    spec = parse_spec({"adapter": {"kind": "bottleneck", "width": 16}})
    method = Workload.of(spec, sizes, "fp32")
    assert method.served_weights == method.trained == sizes.bottleneck_parameters(16)
    assert math.isclose(
        method.cost.training.of([(9, 4)]), lora_cost(sizes, 0, (), 16).training.of([(9, 4)])
    )

"""A frozen base in fewer bytes: what each number format promises, and jobs that train on it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedcore.dialogues.examples import generate
from fedcore.errors import ModelError
from fedcore.methods.session import Session
from fedcore.model import quantise
from fedcore.model.adapters import attach
from fedcore.model.export_folder import export_adapter, export_merged
from fedcore.model.load import load_base
from fedcore.model.parameters import set_trainable
from fedcore.model.quantise import BLOCK, NF4_LEVELS, SCHEMES, QuantisedLinear
from fedcore.simulate.federation import simulate
from fedcore.simulate.results import RoundResult, global_file
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.train.datasets import Source
from fedcore.wire.frame import FrameReader
from tests.fedcore.conftest import make_model, spec_of

FP32, BF16 = torch.float32, torch.bfloat16
KINDS = tuple(SCHEMES)
PACKED = ("int8", "nf4")


def weight_of(out: int = 24, width: int = 2 * BLOCK) -> torch.Tensor:
    """Rows of very different size, as an outlier channel would be."""
    rows = torch.logspace(-3, 2, out)[:, None]
    return torch.randn(out, width, generator=torch.Generator().manual_seed(0)) * rows


def test_int8_error_is_half_a_channel_step() -> None:
    weight = weight_of()
    error = (QuantisedLinear(weight, "int8").dequantised() - weight).abs()
    step = weight.abs().amax(1, keepdim=True) / 127
    assert (error <= 0.5001 * step).all() and (error > 0.4 * step).any()


def test_nf4_error_is_half_a_block_gap() -> None:
    weight = weight_of()
    layer = QuantisedLinear(weight, "nf4")
    levels = torch.tensor(NF4_LEVELS)
    blocks = weight.view(-1, BLOCK)
    largest = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks[..., None] / largest[..., None] - levels).abs().amin(-1) * largest
    error = (layer.dequantised() - weight).abs().view(-1, BLOCK)
    torch.testing.assert_close(error, nearest, atol=1e-6, rtol=1e-4)
    assert (error <= 0.5001 * levels.diff().max() * largest).all()


def test_nf4_levels_follow_from_their_definition() -> None:
    """QLoRA, appendix E: 8 and 9 quantiles of N(0, 1) that share the zero, scaled to reach 1."""
    offset = 1 - 0.5 * (1 / 32 + 1 / 30)
    spaced = [torch.linspace(offset, 0.5, count, dtype=torch.float64) for count in (9, 8)]
    upper, lower = (torch.special.ndtri(points) for points in spaced)
    levels = torch.cat([-upper[:-1], lower]).sort().values
    expected = -torch.tensor(NF4_LEVELS, dtype=torch.float64).flip(0)
    torch.testing.assert_close(levels / levels.abs().max(), expected, atol=1e-6, rtol=0)


def test_representable_numbers_are_exact() -> None:
    codes = torch.arange(-127, 128).float().repeat(2, 1) * torch.tensor([[0.25], [4.0]])
    assert torch.equal(QuantisedLinear(codes, "int8").dequantised(), codes)
    levels = torch.tensor(NF4_LEVELS).repeat(3, 8) * torch.tensor([[1.0], [0.5], [16.0]])
    assert torch.equal(QuantisedLinear(levels, "nf4").dequantised(), levels)
    stored = weight_of().to(BF16).float()
    assert torch.equal(QuantisedLinear(stored, "bf16").dequantised(), stored)


@pytest.mark.parametrize("kind", KINDS)
def test_quantising_twice_changes_nothing(kind: str) -> None:
    once = QuantisedLinear(weight_of(), kind).dequantised()
    again = QuantisedLinear(once, kind).dequantised()
    torch.testing.assert_close(again, once, atol=0, rtol=3e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_rows_and_odd_widths(kind: str) -> None:
    weight = torch.randn(5, BLOCK + 7)
    weight[2] = 0
    result = QuantisedLinear(weight, kind).dequantised()
    assert result.shape == weight.shape and not result[2].any() and torch.isfinite(result).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(value: float) -> None:
    weight = weight_of()
    weight[3, 5] = value
    with pytest.raises(ModelError, match="NaN or infinity"):
        QuantisedLinear(weight, "int8")


@pytest.mark.parametrize("chunk", [1 << 22, 5 * 2 * BLOCK])
@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("kind", KINDS)
def test_quantised_layer_equals_dequantised_layer(
    kind: str, dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "CHUNK_ELEMENTS", chunk)
    torch.manual_seed(0)
    layer = QuantisedLinear(torch.randn(24, 2 * BLOCK), kind)
    inputs = torch.randn(2, 3, layer.in_features, dtype=dtype)
    x, y = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    output = layer(x)
    expected = torch.nn.functional.linear(y, layer.dequantised(dtype))
    grad = torch.randn_like(output)
    output.backward(grad)
    expected.backward(grad)
    near = {"atol": 1e-4, "rtol": 1e-4} if dtype == FP32 else {"atol": 0.2, "rtol": 0.02}
    torch.testing.assert_close(output, expected, **near)
    torch.testing.assert_close(x.grad, y.grad, **near)
    assert output.dtype == x.grad.dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_backward_pass_saves_no_weights(kind: str) -> None:
    layer = QuantisedLinear(weight_of(), kind)
    tensors: list[torch.Tensor] = []
    x = torch.randn(4, layer.in_features, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: tensors.append(t) or t, lambda t: t):
        layer(x).sum().backward()
    assert not tensors and x.grad is not None


def test_autocast_sets_the_precision() -> None:
    layer = QuantisedLinear(weight_of(), "int8")
    with torch.autocast("cpu", BF16):
        assert layer(torch.randn(1, layer.in_features)).dtype == BF16


@pytest.mark.parametrize("kind", KINDS)
def test_quantised_size_and_frozen_parameters(kind: str) -> None:
    layer = QuantisedLinear(torch.randn(64, 8 * BLOCK), kind)
    size = sum(item.numel() * item.element_size() for item in layer.buffers())
    scales = 64 * 4 if kind == "int8" else 0
    assert size == SCHEMES[kind].bytes_per_weight * 64 * 8 * BLOCK + scales
    assert not list(layer.parameters())


@pytest.mark.parametrize("precision", [FP32, BF16])
@pytest.mark.parametrize("kind", ["fp32", *KINDS])
def test_every_base_loads_under_every_precision(
    tiny: Path, kind: str, precision: torch.dtype
) -> None:
    plain, base = load_base(str(tiny), FP32), load_base(str(tiny), precision, kind)
    assert base.fingerprint == plain.fingerprint
    assert not any(item.is_meta for item in base.model.state_dict().values())
    assert torch.equal(base.model.lm_head.weight.float(),
                       plain.model.lm_head.weight.to(base.model.dtype).float())  # fmt: skip
    assert base.model.decoder.embed_tokens.weight is base.model.shared.weight
    ids = torch.tensor([[5, 6, 7, 1]])
    with torch.no_grad(), torch.autocast("cpu", BF16, precision == BF16):
        actual, expected = (
            item.model(input_ids=ids, decoder_input_ids=ids).logits.float()
            for item in (base, plain)
        )
    assert (actual - expected).norm() < {"nf4": 0.5}.get(kind, 0.06) * expected.norm()


def test_bf16_model_equals_transformers(tiny: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    theirs = AutoModelForSeq2SeqLM.from_pretrained(tiny, dtype=BF16)
    mine = load_base(str(tiny), BF16).model
    expected, actual = theirs.state_dict(), mine.state_dict()
    assert list(actual) == list(expected)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert mine.config.to_dict() == theirs.config.to_dict()
    ids = torch.tensor([[5, 6, 7, 1]])
    assert torch.equal(mine.generate(ids, max_new_tokens=8), theirs.generate(ids, max_new_tokens=8))


def test_tied_output_layer_stays_tied(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "tied")
    stored = load_file(folder / "model.safetensors")
    del stored["lm_head.weight"]
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lack lm_head"):
        load_base(str(folder), FP32, "int8")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    model = load_base(str(folder), FP32, "int8").model
    assert model.lm_head.weight is model.shared.weight and model.config.scale_decoder_outputs


def test_broken_files_are_named(tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    stored = load_file(tiny / "model.safetensors")
    name = "decoder.block.1.layer.2.DenseReluDense.wo.weight"
    faults = {
        "lack decoder.*wo": {key: stored[key] for key in stored if key != name},
        "wo.weight has shape": stored | {name: torch.zeros(3, 3)},
        "wo.weight holds NaN": stored | {name: stored[name] * float("nan")},
    }
    for message, tensors in faults.items():
        save_file(tensors, copy / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match=message):
            load_base(str(copy), FP32, "nf4")
    with pytest.raises(ModelError, match="not as 'int3'"):
        load_base(str(tiny), FP32, "int3")


def test_peft_wraps_quantised_layers(tiny: Path) -> None:
    targets = ("q", "v", "wo")
    model = attach(load_base(str(tiny), FP32, "nf4"), AdapterSpec(rank=2, targets=targets), 0)
    wrapped = [item for item in model.modules() if hasattr(item, "base_layer")]
    assert len(wrapped) == 2 * (2 + 4) + 4
    assert all(isinstance(item.base_layer, QuantisedLinear) for item in wrapped)
    assert all(item.dtype == FP32 for item in model.parameters() if item.requires_grad)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    """Two devices with dialogues of a domain that nano has not seen."""
    folder = tmp_path_factory.mktemp("clinic")
    devices = {}
    for number in range(2):
        path = folder / f"{number}.jsonl"
        rows = [vars(item) for item in generate("clinic", 60, number)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        devices[f"device-{number}"] = Source(str(path))
    return devices


def job_on(model: Path | str, base: str, **changes: object) -> JobSpec:
    spec = spec_of(model, **changes)
    return replace(spec, model=replace(spec.model, base=base))


def run(base: str, clinic: dict[str, Source], folder: Path) -> list[RoundResult]:
    spec = job_on(
        "nano",
        base,
        adapter={"rank": 8},
        data={"max_source_tokens": 160, "max_target_tokens": 16},
        train={"local_steps": 5, "learning_rate": 5e-3},
        rounds=1,
    )
    return simulate(spec, clinic, folder)


def test_federation_learns_on_any_base(clinic: dict[str, Source], tmp_path: Path) -> None:
    results = {base: run(base, clinic, tmp_path / base) for base in ("fp32", *PACKED)}
    first, last = (
        {base: rounds[place].mean["loss"] for base, rounds in results.items()} for place in (0, -1)
    )
    learnt = first["fp32"] - last["fp32"]
    assert learnt > 0.3
    assert abs(last["int8"] - last["fp32"]) < 0.05 * learnt
    assert abs(last["nf4"] - last["fp32"]) < 0.25 * learnt
    assert last["nf4"] < first["fp32"] - 0.7 * learnt
    assert len({rounds[-1].sha256 for rounds in results.values()}) == 3


def test_bf16_storage_is_exact() -> None:
    """Those of nano are; the products are then the same bits."""
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        one, other = (
            load_base("nano", FP32, base).model(input_ids=ids, decoder_input_ids=ids).logits
            for base in ("fp32", "bf16")
        )
    assert torch.equal(one, other)


@pytest.mark.parametrize("base", PACKED)
def test_quantised_job_repeats_and_exports(
    tiny: Path, tmp_path: Path, rows_file: Path, base: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM

    spec = job_on(tiny, base, rounds=1)
    devices = {"one": Source(str(rows_file))}
    once, again = (simulate(spec, devices, tmp_path / name)[-1] for name in ("a", "b"))
    assert once.sha256 == again.sha256 and once.mean["loss"] == again.mean["loss"]
    weights = global_file(tmp_path / "a", 1)
    folder = export_adapter(spec, weights, tmp_path / "adapter")
    home = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(tiny), folder)
    plain = attach(load_base(str(tiny), FP32), spec.adapter, 0)
    set_trainable(plain, FrameReader(weights))
    ids = torch.tensor([[5, 6, 7, 1]])
    with torch.no_grad():
        one, other = (item.eval()(input_ids=ids, decoder_input_ids=ids).logits
                      for item in (home, plain))  # fmt: skip
    assert torch.equal(one, other)
    merged = export_merged(spec, weights, tmp_path / "merged")
    assert load_base(str(merged), FP32).model is not None


def test_session_keeps_bases_apart(tiny: Path, tmp_path: Path, rows_file: Path) -> None:
    from fedcore.model.initial import write_initial

    session, losses = Session(tmp_path / "cache"), []
    for base in ("fp32", "nf4", "fp32"):
        spec = job_on(tiny, base)
        write_initial(spec, tmp_path / "g")
        losses.append(session.evaluate(spec, tmp_path / "g", Source(str(rows_file))).loss)
    assert losses[0] == losses[2] != losses[1]

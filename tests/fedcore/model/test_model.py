"""Loading, adapters, first global weights and what a person takes home."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedcore.errors import ModelError, WireError
from fedcore.model.adapters import attach
from fedcore.model.export_folder import export_adapter, export_merged
from fedcore.model.initial import write_initial
from fedcore.model.kinds.lora import lora_shapes
from fedcore.model.load import fingerprint, load_base, resolve
from fedcore.model.parameters import get_trainable, set_trainable
from fedcore.model.skeleton import full_shapes, skeleton
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.wire.frame import FrameReader, write_frame
from tests.fedcore.conftest import make_model, spec_of

FP32 = torch.float32


def test_output_layer_stays_untied(tiny: Path) -> None:
    base = load_base(str(tiny), FP32)
    stored = load_file(tiny / "model.safetensors")
    assert torch.equal(base.model.lm_head.weight, stored["lm_head.weight"])
    assert torch.equal(base.model.shared.weight, stored["shared.weight"])
    assert base.model.encoder.embed_tokens.weight is base.model.shared.weight
    assert not base.model.config.scale_decoder_outputs


def test_missing_output_layer_is_refused(tiny: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(tiny, tmp_path / "broken"))
    stored = load_file(tiny / "model.safetensors")
    del stored["lm_head.weight"]
    save_file(stored, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lack lm_head"):
        load_base(str(broken), FP32)


def test_bf16_loads_and_fp16_is_refused(tiny: Path) -> None:
    assert load_base(str(tiny), torch.bfloat16).model.dtype == torch.bfloat16
    with pytest.raises(ModelError, match="overflows in fp16"):
        load_base(str(tiny), torch.float16)


def test_fingerprint_depends_on_weights_not_files(tiny: Path, tmp_path: Path) -> None:
    stored = load_file(tiny / "model.safetensors")
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    (copy / "model.safetensors").unlink()
    torch.save(stored | {"encoder.embed_tokens.weight": stored["shared.weight"]},
               copy / "pytorch_model.bin")  # fmt: skip
    assert fingerprint(copy) == fingerprint(tiny)
    assert fingerprint(make_model(tmp_path / "other", seed=1)) != fingerprint(tiny)


def test_unknown_model_name_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"hf download google/flan-t5-none --local-dir"):
        resolve("google/flan-t5-none")
    with pytest.raises(ModelError, match="no folder /does/not/exist"):
        resolve("/does/not/exist")
    with pytest.raises(ModelError, match=r"no readable config\.json"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="'bert' model; give a T5-family one"):
        resolve(str(tmp_path))


def test_folder_without_weights_is_refused(tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        write_initial(spec_of(copy), tmp_path / "g")
    (copy / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="no readable weight file"):
        write_initial(spec_of(copy), tmp_path / "g")


def test_lora_names_equal_peft_names(tiny: Path) -> None:
    from peft import get_peft_model_state_dict

    base = load_base(str(tiny), FP32)
    model = attach(base, AdapterSpec(rank=3, targets=("q", "wi_0", "wo")), 5)
    saved = get_peft_model_state_dict(model)
    mine = get_trainable(model)
    assert set(saved) == set(mine) == set(lora_shapes(skeleton(base.source), AdapterSpec(
        rank=3, targets=("q", "wi_0", "wo"))))  # fmt: skip
    assert all(torch.equal(saved[name], mine[name]) for name in mine)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_initial_artefact_equals_a_fresh_adapter(tiny: Path, tmp_path: Path, kind: str) -> None:
    spec = spec_of(tiny, adapter={"kind": kind}, seed=9)
    info = write_initial(spec, tmp_path / "g")
    model = attach(load_base(str(tiny), FP32), spec.adapter, 9)
    mine, frame = get_trainable(model), FrameReader(tmp_path / "g")
    assert set(mine) == set(frame)
    assert all(torch.equal(mine[name], frame[name]) for name in mine)
    assert info.trainable_parameters == sum(item.numel() for item in mine.values())
    assert frame.meta["kind"] == "global" and frame.meta["fingerprint"] == info.fingerprint


def test_seed_sets_the_initial_adapter(tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = write_initial(spec_of(tiny, seed=1), tmp_path / "1")
    torch.manual_seed(2)
    assert one.sha256 == write_initial(spec_of(tiny, seed=1), tmp_path / "1b").sha256
    assert one.sha256 != write_initial(spec_of(tiny, seed=2), tmp_path / "2").sha256


def test_attaching_keeps_the_random_state(tiny: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    attach(load_base(str(tiny), FP32), AdapterSpec(), 0)
    assert torch.equal(torch.rand(2), expected)


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "tied")
    config = json.loads((folder / "config.json").read_text())
    stored = load_file(folder / "model.safetensors")
    del stored["lm_head.weight"]
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    info = write_initial(spec_of(folder, adapter={"kind": "full"}), tmp_path / "g")
    assert set(full_shapes(resolve(str(folder)))) == set(FrameReader(tmp_path / "g"))
    assert (
        info.parameters == info.trainable_parameters == FrameReader(tmp_path / "g").header.elements
    )


def test_mismatched_weights_are_refused(tiny: Path) -> None:
    model = attach(load_base(str(tiny), FP32), AdapterSpec(rank=2), 0)
    weights = get_trainable(model)
    name = min(weights)
    with pytest.raises(WireError, match="1 names differ"):
        set_trainable(model, {key: weights[key] for key in weights if key != name})
    with pytest.raises(WireError, match="mis-shaped"):
        set_trainable(model, weights | {name: torch.zeros(1, 1)})


def test_unknown_targets_are_named(tmp_path: Path) -> None:
    plain = make_model(tmp_path / "plain", feed_forward_proj="relu")
    with pytest.raises(ModelError, match="no matrix called wi_1"):
        write_initial(spec_of(plain, adapter={"targets": ["q", "wi_1"]}), tmp_path / "g")


def tuned_frame(model: Path, path: Path, kind: str) -> Path:
    """Global weights that differ from the start, as after training."""
    spec = spec_of(model, adapter={"kind": kind})
    write_initial(spec, path)
    torch.manual_seed(0)
    reader = FrameReader(path)
    moved = {name: reader[name] + 0.3 * torch.randn_like(reader[name]) for name in reader}
    write_frame(path, moved, dict(reader.meta))
    return path


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.tensor([[5, 6, 7, 1]])
    with torch.no_grad():
        return model.eval()(input_ids=ids, decoder_input_ids=ids).logits


def test_adapter_folder_loads_in_plain_peft(tiny: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM

    spec = spec_of(tiny)
    path = tuned_frame(tiny, tmp_path / "g", "lora")
    folder = export_adapter(spec, path, tmp_path / "adapter")
    base = AutoModelForSeq2SeqLM.from_pretrained(tiny)
    untuned = logits_of(base)
    theirs = logits_of(PeftModel.from_pretrained(base, folder))
    mine = attach(load_base(str(tiny), FP32), spec.adapter, 0)
    set_trainable(mine, FrameReader(path))
    assert torch.equal(theirs, logits_of(mine)) and not torch.allclose(theirs, untuned)
    with pytest.raises(ModelError, match="there is no adapter"):
        export_adapter(replace(spec, adapter=AdapterSpec(kind="full")), path, tmp_path)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_merged_folder_loads_in_plain_transformers(tiny: Path, tmp_path: Path, kind: str) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    spec = spec_of(tiny, adapter={"kind": kind})
    path = tuned_frame(tiny, tmp_path / "g", kind)
    folder = export_merged(spec, path, tmp_path / "merged")
    merged = AutoModelForSeq2SeqLM.from_pretrained(folder)
    mine = attach(load_base(str(tiny), FP32), spec.adapter, 0)
    set_trainable(mine, FrameReader(path))
    assert torch.allclose(logits_of(merged), logits_of(mine), atol=1e-5)
    assert AutoTokenizer.from_pretrained(folder)("anna").input_ids[0] > 2


def test_merging_onto_foreign_weights_is_refused(tiny: Path, tmp_path: Path) -> None:
    path = tuned_frame(tiny, tmp_path / "g", "lora")
    other = make_model(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match="foreign base"):
        export_merged(spec_of(other), path, tmp_path / "merged")

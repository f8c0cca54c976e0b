"""Take the tuned model home: a PEFT adapter folder, or a model folder with everything merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from torch import Tensor

from fedcore.errors import ModelError
from fedcore.model.load import ModelSource, fingerprint, resolve
from fedcore.model.weights import WeightFiles
from fedcore.plan.peft_config import CONFIG_FILE, WEIGHTS_FILE, adapter_config
from fedcore.spec import JobSpec
from fedcore.tailoring import PREFIX
from fedcore.wire.frame import FrameReader, FrameWriter

WEIGHTS = ("*.safetensors", "*.bin", "*.index.json", "*.msgpack", "*.h5")


def export_adapter(spec: JobSpec, global_path: Path | str, out_dir: Path | str) -> Path:
    """Write a folder that ``PeftModel.from_pretrained`` loads; returns it. LoRA jobs only."""
    if spec.adapter.kind != "lora":
        raise ModelError("this job trained every weight; there is no adapter: take the model")
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(global_path, out / WEIGHTS_FILE)
    text = json.dumps(adapter_config(spec), indent=2, sort_keys=True)
    (out / CONFIG_FILE).write_text(text + "\n", "utf-8")
    return out


def export_merged(spec: JobSpec, global_path: Path | str, out_dir: Path | str) -> Path:
    """Write a model folder (fp32 weights, configuration, tokenizer); returns it.

    Works tensor by tensor from the base's files: the memory needed is that of the largest matrix.
    """
    source = resolve(spec.model.name)
    tuned = FrameReader(global_path)
    _check_base(tuned, source)
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    _copy_the_rest(source, out)
    files = WeightFiles(source.folder)
    layout = {name: ("F32", files.shape(name)) for name in files.names}
    with FrameWriter(out / "model.safetensors", layout, {}) as writer:
        for name in writer.order:
            writer.write(name, _merged(spec, name, files, tuned))
    return out


def _merged(spec: JobSpec, name: str, files: WeightFiles, tuned: FrameReader) -> Tensor:
    if spec.adapter.kind == "full":
        return tuned[name] if name in tuned else files.tensor(name).float()
    weight = files.tensor(name).float()
    stem = PREFIX + name.removesuffix(".weight")
    if f"{stem}.lora_A.weight" not in tuned:
        return weight
    scale = spec.adapter.alpha / spec.adapter.rank
    return weight + scale * (tuned[f"{stem}.lora_B.weight"] @ tuned[f"{stem}.lora_A.weight"])


def _check_base(tuned: FrameReader, source: ModelSource) -> None:
    wanted = tuned.meta.get("fingerprint")
    if wanted and wanted != fingerprint(source.folder):
        raise ModelError(
            f"foreign base: this artefact was tuned from other weights than {source.name} has here"
        )


def _copy_the_rest(source: ModelSource, out: Path) -> None:
    for path in sorted(source.folder.iterdir()):
        if path.is_file() and not any(path.match(pattern) for pattern in WEIGHTS):
            shutil.copyfile(path, out / path.name)
    text = json.dumps({**source.config, "dtype": "float32"}, indent=2, sort_keys=True)
    (out / "config.json").write_text(text + "\n", "utf-8")

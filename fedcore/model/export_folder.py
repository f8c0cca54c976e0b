"""Take the tuned model home: an adapter's folder, or a model folder with everything merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from torch import Tensor

from fedcore.errors import ModelError
from fedcore.export import bottleneck_config
from fedcore.export.peft_config import (
    BASE_CHANGED,
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_config,
    folds_into_base,
)
from fedcore.model.load import fingerprint, resolve
from fedcore.model.received import SCALE_KEY, merged_change
from fedcore.model.source import ModelSource
from fedcore.model.weights import WeightFiles
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import factor_name
from fedcore.wire.frame import FrameReader, FrameWriter

WEIGHTS = ("*.safetensors", "*.bin", "*.index.json", "*.msgpack", "*.h5")


def export_adapter(spec: JobSpec, global_path: Path | str, out_dir: Path | str) -> Path:
    """Write the folder of a job's adapter; returns it.

    LoRA: one that ``PeftModel.from_pretrained`` loads. Bottlenecks: one that
    ``fedcore.model.tuned.load_tuned`` loads.
    """
    if spec.adapter.family.trains_base_weights:
        raise ModelError("this job trained every weight; there is no adapter: take the model")
    if folds_into_base(spec):
        raise ModelError(BASE_CHANGED)
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    if spec.adapter.kind == "bottleneck":
        shutil.copyfile(global_path, out / bottleneck_config.WEIGHTS_FILE)
        text = bottleneck_config.config_text(spec)
        (out / bottleneck_config.CONFIG_FILE).write_text(text, "utf-8")
        return out
    shutil.copyfile(global_path, out / WEIGHTS_FILE)
    text = json.dumps(adapter_config(spec), indent=2, sort_keys=True)
    (out / CONFIG_FILE).write_text(text + "\n", "utf-8")
    return out


def export_merged(spec: JobSpec, global_path: Path | str, out_dir: Path | str) -> Path:
    """Write a model folder (fp32 weights, configuration, tokenizer); returns it.

    Works tensor by tensor from the base's files: the memory needed is that of the largest matrix.
    Raises ModelError for bottlenecks, which no weight can take in.
    """
    if not spec.adapter.family.merges_into_base:
        raise ModelError(bottleneck_config.NOT_MERGED)
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
    if spec.adapter.family.trains_base_weights:
        return tuned[name] if name in tuned else files.tensor(name).float()
    weight, module = files.tensor(name).float(), name.removesuffix(".weight")
    a, b = (factor_name(module, factor) for factor in "AB")
    if a not in tuned:
        return weight
    scale = float(tuned.meta.get(SCALE_KEY, spec.adapter.scale))
    weight = weight + scale * (tuned[b] @ tuned[a])
    if factor_name(module, "MA") in tuned:
        weight = weight + merged_change(tuned, module)
    return weight


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

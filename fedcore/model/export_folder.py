"""Take the tuned model home: an adapter's folder, or a model folder with everything merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fedcore.errors import ModelError
from fedcore.export.contract import BASE_CHANGED
from fedcore.export.table import EXPORTS
from fedcore.model.kinds.table import ADAPTER_MODELS
from fedcore.model.load import fingerprint, resolve
from fedcore.model.weights import WeightFiles
from fedcore.spec.job import JobSpec
from fedcore.wire.frame import FrameReader, FrameWriter

WEIGHTS = ("*.safetensors", "*.bin", "*.index.json", "*.msgpack", "*.h5")


def export_adapter(spec: JobSpec, global_path: Path | str, out_dir: Path | str) -> Path:
    """Write the folder of a job's adapter; returns it.

    LoRA: one that ``PeftModel.from_pretrained`` loads. Bottlenecks: one that
    ``fedcore.model.tuned.load_tuned`` loads.
    """
    folder = EXPORTS[spec.adapter.family.kind].folder
    if folder is None:
        raise ModelError("this job trained every weight; there is no adapter: take the model")
    if spec.adapter.averaging.merges_into_base:
        raise ModelError(BASE_CHANGED)
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(global_path, out / folder.weights_file)
    (out / folder.config_file).write_text(folder.config_text(spec), "utf-8")
    return out


def export_merged(spec: JobSpec, global_path: Path | str, out_dir: Path | str) -> Path:
    """Write a model folder (fp32 weights, configuration, tokenizer); returns it.

    Works tensor by tensor from the base's files: the memory needed is that of the largest matrix.
    Raises ModelError for bottlenecks, which no weight can take in.
    """
    kind = spec.adapter.family.kind
    if why := EXPORTS[kind].not_merged:
        raise ModelError(why)
    source = resolve(spec.model.name)
    tuned = FrameReader(global_path)
    base_fingerprint = tuned.meta.get("fingerprint")
    if base_fingerprint and base_fingerprint != fingerprint(source.folder):
        raise ModelError(
            f"foreign base: this artefact was tuned from other weights than {source.name} has here"
        )
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.folder.iterdir()):
        if path.is_file() and not any(path.match(pattern) for pattern in WEIGHTS):
            shutil.copyfile(path, out / path.name)
    text = json.dumps({**source.config, "dtype": "float32"}, indent=2, sort_keys=True)
    (out / "config.json").write_text(text + "\n", "utf-8")
    files = WeightFiles(source.folder)
    layout = {name: ("F32", files.shape(name)) for name in files.names}
    with FrameWriter(out / "model.safetensors", layout, {}) as writer:
        for name in writer.order:
            writer.write(name, ADAPTER_MODELS[kind].merged(spec, name, files, tuned))
    return out

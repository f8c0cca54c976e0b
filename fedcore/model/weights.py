"""The files of a model folder: its configuration, and its weights read tensor by tensor."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fedcore.errors import ModelError

ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are. ``name`` is what the specification says."""

    name: str
    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((self.folder / "config.json").read_text("utf-8"))
        return values

    @property
    def tied(self) -> bool:
        """Whether the output layer is the embedding, as in T5 1.0 (not in FLAN-T5)."""
        return bool(self.config.get("tie_word_embeddings", True))


class WeightFiles:
    """Names and tensors of a folder's safetensors (or, failing these, PyTorch) files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = sorted(folder.glob("model*.safetensors")) or sorted(
            folder.glob("pytorch_model*.bin")
        )
        if not self.paths:
            raise ModelError(f"{folder} holds no model.safetensors and no pytorch_model.bin")
        self._unpickled: dict[Path, dict[str, Tensor]] = {}
        index = {name: path for path in self.paths for name in self._file(path).keys()}  # noqa: SIM118
        if "shared.weight" in index:
            index = {name: path for name, path in index.items() if name not in ALIASES}
        self._path_of: dict[str, Path] = index

    def _file(self, path: Path) -> Any:
        """Safetensors are opened for each tensor: pages once read stay resident until closed."""
        if path in self._unpickled:
            return self._unpickled[path]
        try:
            if path.suffix == ".safetensors":
                return safe_open(str(path), framework="pt")
            tensors = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:
            raise ModelError(f"{path} is no readable weight file: {error}") from error
        return self._unpickled.setdefault(path, tensors)

    @property
    def names(self) -> list[str]:
        """Every distinct tensor once, sorted; the embedding's aliases are left out."""
        return sorted(self._path_of)

    @property
    def stamp(self) -> tuple[tuple[str, int, int], ...]:
        """Name, size in bytes and time of change (ns) of each file."""
        stats = [(path, path.stat()) for path in self.paths]
        return tuple((path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats)

    def shape(self, name: str) -> tuple[int, ...]:
        file = self._file(self._path_of[name])
        if isinstance(file, dict):
            return tuple(file[name].shape)
        return tuple(file.get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        """One tensor as stored. Raises ModelError for a name the files do not have."""
        if name not in self._path_of:
            raise ModelError(f"the weight files in {self.folder} lack {name}")
        file = self._file(self._path_of[name])
        tensor: Tensor = file[name] if isinstance(file, dict) else file.get_tensor(name)
        return tensor

    def digest(self) -> str:
        """SHA-256 (hex) over each tensor's name, type, shape and bytes, sorted by name."""
        digest = hashlib.sha256()
        for name in self.names:
            tensor = self.tensor(name).contiguous()
            label = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
            digest.update(label.encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

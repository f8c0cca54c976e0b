"""The weight files of a model folder, read tensor by tensor: no model is built, nothing is held."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fedcore.errors import ModelError

ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


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
        self._where = self._index()

    def _index(self) -> dict[str, Path]:
        where = {name: path for path in self.paths for name in self._file(path).keys()}  # noqa: SIM118
        if "shared.weight" in where:
            where = {name: path for name, path in where.items() if name not in ALIASES}
        return where

    def _file(self, path: Path) -> Any:
        """Safetensors are opened anew each time: pages once read stay resident until closed."""
        if path in self._unpickled:
            return self._unpickled[path]
        try:
            if path.suffix == ".safetensors":
                return safe_open(str(path), framework="pt")
            found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:
            raise ModelError(f"{path} is no readable weight file: {error}") from error
        return self._unpickled.setdefault(path, found)

    @property
    def names(self) -> list[str]:
        """Every distinct tensor once, sorted; the embedding's aliases are left out."""
        return sorted(self._where)

    @property
    def stamp(self) -> tuple[tuple[str, int, int], ...]:
        """Name, size in bytes and time of change (ns) of each file."""
        stats = [(path, path.stat()) for path in self.paths]
        return tuple((path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats)

    def shape(self, name: str) -> tuple[int, ...]:
        file = self._file(self._where[name])
        if isinstance(file, dict):
            return tuple(file[name].shape)
        return tuple(file.get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        """One tensor as stored. Raises ModelError for a name the files do not have."""
        if name not in self._where:
            raise ModelError(f"the weight files in {self.folder} lack {name}")
        file = self._file(self._where[name])
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

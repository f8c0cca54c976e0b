"""The packaged model ``micro``: untrained, with nano's tokenizer and twice its weights.

It serves trees whose models grow upwards. The repository holds its configuration alone; the weights
are generated where they are needed, the same bytes on every machine: raw output of PCG64, scaled by
one product each, rounded to bf16. As nano's did, they start with a copying circuit
(``pretrain.induction``), wired with signed permutations, which are exact.

``python -m fedcore.model.micro --out DIR`` writes them into a folder.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedcore.errors import ModelError
from fedcore.model.quiet import quiet_libraries
from fedcore.seeds import derive
from fedcore.wire.frame import write_frame

CHECKPOINTS = Path(__file__).parent / "checkpoints"
SEED = 0
VERSION = "1"  # of what is made; part of the folder's name
FROM_NANO = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
WEIGHTS_FILE = "model.safetensors"


def micro_folder() -> Path:
    """The model's files, made at the first call and kept beside what the hub's client keeps.

    Raises ModelError where they cannot be kept there.
    """
    from huggingface_hub.constants import HF_HOME

    folder = Path(HF_HOME) / "edgewise" / f"micro-{VERSION}"
    if not (folder / WEIGHTS_FILE).is_file():
        part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            write_micro(part)
            part.replace(folder)
        except OSError as error:
            # Otherwise another process was first with the same files.
            if not (folder / WEIGHTS_FILE).is_file():
                message = (
                    f"the model micro cannot be kept in {folder.parent} ({error}); set HF_HOME"
                )
                raise ModelError(message) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def write_micro(folder: Path, config: Path = CHECKPOINTS / "micro" / "config.json") -> str:
    """Write configuration, nano's tokenizer and the weights; SHA-256 of the weights' file."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(config, folder / "config.json")
    for name in FROM_NANO:
        shutil.copyfile(CHECKPOINTS / "nano" / name, folder / name)
    return write_frame(folder / WEIGHTS_FILE, _weights(folder), {}).sha256


@torch.no_grad()
def _weights(folder: Path) -> dict[str, Tensor]:
    with quiet_libraries():
        from transformers import AutoConfig, T5ForConditionalGeneration

        from fedcore.model.pretrain.induction import Wiring, wire

        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = T5ForConditionalGeneration(config)
    model.to_empty(device="cpu")
    for name, parameter in model.named_parameters():
        parameter.copy_(_random_weight(name, parameter, config))
    draw = partial(_signed_rows, count())
    wire(model, Wiring.of(draw, config.d_kv, config.d_model))
    return {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith("embed_tokens.weight")
    }


def _random_weight(name: str, parameter: Tensor, config: Any) -> Tensor:
    """Uniform, with the standard deviation of T5's initial weights; 1 in the norms."""
    if "layer_norm" in name:
        return torch.ones_like(parameter)
    last = name.removesuffix(".weight").rpartition(".")[2]
    inner = config.num_heads * config.d_kv
    fan_in = {
        "shared": 1, "q": config.d_model * config.d_kv, "o": inner, "wo": config.d_ff,
    }.get(last, config.d_model)  # fmt: skip
    words = _words(name, parameter.numel()).astype(np.float64) - 32767.5
    scaled = words * (math.sqrt(12 / fan_in) / 65536)
    return torch.from_numpy(scaled.astype(np.float32)).reshape(parameter.shape)


def _words(name: str, numbers: int) -> Any:
    """16-bit numbers of a tensor's own; numpy promises PCG64's raw output for ever."""
    raw = np.random.PCG64(derive(SEED, "micro", name)).random_raw(-(-numbers // 4))
    return raw.astype("<u8").view("<u2")[:numbers]


def _signed_rows(numbers: Iterator[int], rows: int, columns: int) -> Tensor:
    """``rows`` of a permutation matrix, each with a sign of its own: exactly orthonormal."""
    words = _words(f"wiring {next(numbers)}", 2 * columns)
    places = np.argsort(words[:columns], kind="stable")[:rows]
    matrix = torch.zeros(rows, columns)
    signs = np.where(words[columns : columns + rows] & 1, 1.0, -1.0).astype(np.float32)
    matrix[torch.arange(rows), torch.from_numpy(places)] = torch.from_numpy(signs)
    return matrix


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fedcore.model.micro")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the checkpoint")
    print(write_micro(parser.parse_args().out))


if __name__ == "__main__":
    main()

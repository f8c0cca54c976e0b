"""Find and load a T5-family model: the packaged ``nano`` or ``micro``, a folder, or a hub name.

FLAN-T5's output layer is its own matrix, not the embedding. transformers 5 declares every T5 tied
and leaves the two apart only when it finds different weights for both, so loading checks it.
fp16 is never used: T5 overflows in it (transformers #5651, #11461, #23918).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from fedcore.errors import ModelError
from fedcore.model.micro import micro_folder
from fedcore.model.quantise_load import build
from fedcore.model.quiet import quiet_libraries
from fedcore.model.weights import ModelSource, WeightFiles
from fedcore.spec.options.train import BasePrecision

NANO = Path(__file__).parent / "checkpoints" / "nano"
FAMILY = ("t5", "mt5", "umt5")
HUB_FILES = ["*.json", "*.safetensors", "*.model"]
HUB_INSTRUCTIONS = (
    "on a machine that reaches the hub run `hf download {name} --local-dir FOLDER`, "
    "copy the folder here and give its path as the model"
)
# Where no scheme is needed, by ``model.base`` and precision: "" is the precision itself.
UNQUANTISED = {
    ("auto", torch.float32): "fp32",
    ("auto", torch.bfloat16): "",
    ("bf16", torch.bfloat16): "",
}


@dataclass(frozen=True)
class Base:
    """A loaded base model. ``fingerprint`` depends on its weights alone."""

    model: Any
    tokenizer: Any
    fingerprint: str
    source: ModelSource


def resolve(name: str) -> ModelSource:
    """Find the files of a model; a hub name is fetched into the hub's own cache.

    Raises ModelError where nothing is found, the hub cannot be reached, or it is no T5.
    """
    local = Path(name).expanduser()
    if name == "nano":
        if not NANO.is_dir():
            raise ModelError("the packaged model nano is missing; run fedcore/model/pretrain")
        folder = NANO
    elif name == "micro":
        folder = micro_folder()
    elif local.is_dir():
        folder = local
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"there is no folder {name}; give a model folder or a hub name")
    else:
        folder = _from_hub(name)
    source = ModelSource(name, folder)
    try:
        kind = source.config.get("model_type")
    except (OSError, ValueError) as error:
        raise ModelError(f"{source.folder} holds no readable config.json") from error
    if kind not in FAMILY:
        raise ModelError(
            f"{name} is a {kind!r} model; give a T5-family one (such as google/flan-t5-small)"
        )
    return source


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    def fetch(patterns: list[str]) -> Path:
        return Path(snapshot_download(name, allow_patterns=patterns, etag_timeout=10))

    try:
        folder = fetch(HUB_FILES)
        if not list(folder.glob("*.safetensors")):
            folder = fetch(["pytorch_model*.bin*"])
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"the hub knows no model {name!r} that may be read without a login; mind the "
            f"spelling, or give a folder"
        ) from error
    except Exception as error:  # the hub client raises a dozen unrelated types when offline
        instructions = HUB_INSTRUCTIONS.format(name=name)
        raise ModelError(f"the model hub cannot be reached for {name!r}: {instructions}") from error
    return folder


def load_base(name: str, precision: torch.dtype, base: str = "auto") -> Base:
    """Load model (to train in ``precision``, on the CPU, evaluation mode) and tokenizer.

    ``base`` says how the weights are kept (a specification's ``model.base``); the fingerprint is
    that of the files, however they are kept.
    """
    if precision not in (torch.float32, torch.bfloat16):
        raise ModelError(f"T5 is used in fp32 or bf16, never in {precision}: it overflows in fp16")
    if base not in set(BasePrecision):
        raise ModelError(f"a base is kept as {', '.join(BasePrecision)}, not as {base!r}")
    source = resolve(name)
    try:
        with quiet_libraries():
            from transformers import AutoModelForSeq2SeqLM

            tokenizer = load_tokenizer(source)
            storage = UNQUANTISED.get((base, precision), base)
            if storage == "fp32":  # mapped from the files, read when used
                model = AutoModelForSeq2SeqLM.from_pretrained(
                    source.folder, dtype=torch.float32, local_files_only=True
                )
            else:
                model = build(source, storage, precision)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"the files of {name} cannot be loaded: {error}") from error
    if model.lm_head.weight is model.shared.weight and not source.tied:
        raise ModelError(
            f"{source.name} has an output layer of its own, but loading shared it with the "
            "embedding; its files lack lm_head.weight or hold a copy of the embedding"
        )
    return Base(model.eval(), tokenizer, fingerprint(source.folder), source)


def load_tokenizer(source: ModelSource) -> Any:
    """The tokenizer alone, without the model. Raises ModelError where its files are unusable."""
    try:
        with quiet_libraries():
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the tokenizer of {source.name} cannot be loaded: {error}") from error


def fingerprint(folder: Path) -> str:
    """SHA-256 over the sorted tensors' names, types, shapes and bytes of a model folder."""
    files = WeightFiles(folder)
    return _fingerprint(folder, files.stamp)


@lru_cache(maxsize=8)
def _fingerprint(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    del stamp  # part of the key: changed files are hashed again
    return WeightFiles(folder).digest()

"""Load a model in fewer bytes straight from its files, one tensor at a time.

The whole model never exists in full precision: beyond the result, memory holds the largest tensor.
Embeddings, output layer, norms and position biases stay in the precision of training. A scheme
stores every other matrix, ``wo`` too. transformers keeps that one in fp32 because T5 overflows in
fp16, which is never used here, and it would not help: nano's mean loss
over six domains (100 examples each) is 2.0175 in fp32, 2.0183 in int8 (``wo`` left out: 2.0178) and
2.0424 in nf4 (2.0466).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedcore.errors import ModelError
from fedcore.model.quantise import QuantisedLinear
from fedcore.model.weights import ALIASES, WeightFiles

if TYPE_CHECKING:
    from fedcore.model.weights import ModelSource

HEAD = "lm_head"
SHARED = "shared.weight"


def build(source: ModelSource, kind: str, precision: torch.dtype) -> Any:
    """The model of a folder on the CPU, its inner matrices stored as ``kind`` (see SCHEMES).

    An empty ``kind`` stores them in ``precision`` as everything else. Raises ModelError where the
    files lack a tensor, or hold one that is mis-shaped or not finite.
    """
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationConfig

    files = WeightFiles(source.folder)
    config = AutoConfig.from_pretrained(source.folder, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(config, dtype=precision)
    if (source.folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(source.folder)
    head = f"{HEAD}.weight"
    missing = {name for name in model.state_dict() if name not in ALIASES}
    for name in files.names:
        if name in missing and name != head:
            _place(model, name, files.tensor(name), kind, precision)
            missing.discard(name)
    # The output layer's own matrix; the embedding where the files hold no other.
    model.lm_head.weight = model.shared.weight
    if head in files.names or not source.tied:
        weight = files.tensor(head).to(precision, copy=True)
        if not torch.equal(weight, model.shared.weight):
            model.lm_head.weight = torch.nn.Parameter(weight)
    missing.discard(head)
    if missing:
        raise ModelError(f"the weight files in {source.folder} lack {min(missing)}")
    return model


def _place(model: Any, name: str, tensor: Tensor, kind: str, precision: torch.dtype) -> None:
    path, _, last = name.rpartition(".")
    owner = model.get_submodule(path)
    if tensor.shape != getattr(owner, last).shape:
        raise ModelError(f"{name} has shape {list(tensor.shape)}, unlike its configuration")
    if kind and isinstance(owner, torch.nn.Linear):
        try:
            model.set_submodule(path, QuantisedLinear(tensor, kind))
        except ModelError as error:
            raise ModelError(f"{name} {error}") from error
        return
    weight = torch.nn.Parameter(tensor.to(precision, copy=True))  # a copy: the file may change
    setattr(owner, last, weight)
    if name == SHARED:
        for alias in ALIASES:
            model.get_submodule(alias.rpartition(".")[0]).weight = weight

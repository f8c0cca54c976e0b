"""What trains: LoRA adapters through peft (this is the only module that knows it) or every weight.

Trainable tensors carry the names of PEFT's own saved files, so the global artefact of a LoRA job
*is* ``adapter_model.safetensors``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fedcore.errors import ModelError, WireError
from fedcore.model.load import Base
from fedcore.model.quiet import quiet_libraries
from fedcore.seeds import derive
from fedcore.spec import AdapterSpec

PREFIX = "base_model.model."


def attach(base: Base, adapter: AdapterSpec, seed: int) -> Any:
    """Make the base trainable in place and return the model to train.

    LoRA: the base is frozen, adapters are fp32 and start as ``initial_lora`` says. Full: every
    weight trains; the base should be fp32 then (bf16 comes from autocast).
    """
    if adapter.kind == "full":
        return base.model.requires_grad_(True)
    shapes = lora_shapes(base.model, adapter)
    with quiet_libraries(), torch.random.fork_rng(devices=[]):  # PEFT draws a start of its own
        model = _with_lora(base, adapter)
    set_trainable(model, initial_lora(shapes, seed))
    return model


def _with_lora(base: Base, adapter: AdapterSpec) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]
        lora_dropout=adapter.dropout,
        target_modules=list(adapter.targets),
    )
    return get_peft_model(base.model, config)


def lora_shapes(model: Any, adapter: AdapterSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every adapter tensor: A (rank, in) and B (out, rank) of each target.

    ``model`` may live on the meta device. Raises ModelError for targets the model does not have.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    met = set()
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if last not in adapter.targets or not isinstance(module, torch.nn.Linear):
            continue
        met.add(last)
        shapes[f"{PREFIX}{name}.lora_A.weight"] = (adapter.rank, module.in_features)
        shapes[f"{PREFIX}{name}.lora_B.weight"] = (module.out_features, adapter.rank)
    if unmet := [target for target in adapter.targets if target not in met]:
        raise ModelError(
            f"this model has no matrix called {', '.join(unmet)}; take it off the LoRA targets"
        )
    return shapes


def initial_lora(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """The first adapter, the same on every machine: A uniform in +-1/sqrt(in), B zero (fp32).

    A's bound is that of PEFT (Kaiming with a = sqrt 5). Tensors are drawn in the order of names.
    """
    generator = torch.Generator().manual_seed(derive(seed, "init"))
    tensors: dict[str, Tensor] = {}
    for name in sorted(shapes):
        tensors[name] = torch.zeros(shapes[name])
        if ".lora_A." in name:
            bound = 1 / math.sqrt(shapes[name][1])
            tensors[name].uniform_(-bound, bound, generator=generator)
    return tensors


def trainable_parameters(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The live trainable parameters under their artefact names, each distinct one once."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name.replace(".default.", "."), parameter


def get_trainable(model: Any) -> dict[str, Tensor]:
    """Copies of the trainable tensors, fp32 on the CPU."""
    return {
        name: parameter.detach().to("cpu", torch.float32, copy=True)
        for name, parameter in trainable_parameters(model)
    }


@torch.no_grad()
def set_trainable(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into the model. Raises WireError where names or shapes differ from its own."""
    own = dict(trainable_parameters(model))
    if set(own) != set(tensors):
        odd = sorted(set(own) ^ set(tensors))
        raise WireError(f"these weights do not fit the model: {len(odd)} names differ ({odd[0]!r})")
    for name, parameter in own.items():
        tensor = tensors[name]
        if tensor.shape != parameter.shape:
            raise WireError(
                f"tensor {name!r} is mis-shaped: {list(tensor.shape)} "
                f"where {list(parameter.shape)} is due"
            )
        parameter.copy_(tensor)

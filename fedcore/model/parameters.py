"""The live parameters of a model by the names they have in artefacts.

Trainable tensors carry the names of PEFT's own saved files, so the global artefact of a LoRA job
*is* ``adapter_model.safetensors``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fedcore.errors import WireError
from fedcore.spec.overrides import PREFIX

Named = Iterator[tuple[str, torch.nn.Parameter]]


def artefact_name(name: str) -> str:
    """LoRA's are PEFT's; every other name is the bare model's, with a LoRA around it or without."""
    return name.replace(".default.", ".") if ".lora_" in name else name.removeprefix(PREFIX)


def trainable_parameters(model: Any) -> Named:
    """The live trainable parameters under their artefact names, each distinct one once."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield artefact_name(name), parameter


def adapter_parameters(model: Any) -> Named:
    """All of LoRA's parameters under their artefact names, those that are frozen as well."""
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            yield artefact_name(name), parameter


def get_trainable(model: Any) -> dict[str, Tensor]:
    """Copies of the trainable tensors, fp32 on the CPU."""
    return {
        name: parameter.detach().to("cpu", torch.float32, copy=True)
        for name, parameter in trainable_parameters(model)
    }


def set_trainable(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Copy what trains into the model. Raises WireError where names or shapes differ."""
    copy_into(dict(trainable_parameters(model)), tensors)


def set_adapter(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Copy a whole LoRA adapter into the model, what is frozen of it as well."""
    copy_into(dict(adapter_parameters(model)), tensors)


@torch.no_grad()
def copy_into(live: Mapping[str, torch.nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into parameters. Raises WireError where names or shapes differ."""
    if set(live) != set(tensors):
        odd = sorted(set(live) ^ set(tensors))
        raise WireError(f"these weights do not fit the model: {len(odd)} names differ ({odd[0]!r})")
    for name, parameter in live.items():
        tensor = tensors[name]
        if tensor.shape != parameter.shape:
            raise WireError(
                f"tensor {name!r} is mis-shaped: {list(tensor.shape)} "
                f"where {list(parameter.shape)} is due"
            )
        parameter.copy_(tensor)

"""What trains: LoRA adapters through peft (this is the only module that knows it), bottleneck
adapters or every weight; under PFTT a LoRA of the device's own beside shared bottlenecks.

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
from fedcore.model import bottleneck, decoder_layers
from fedcore.model.load import Base
from fedcore.model.quiet import quiet_libraries
from fedcore.seeds import derive
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.spec.options.ranks import rank_of
from fedcore.spec.overrides import PREFIX, factor_of


def attach(base: Base, adapter: AdapterSpec, seed: int, own: AdapterSpec | None = None) -> Any:
    """Make the base trainable in place and return the model to train.

    LoRA and bottlenecks: the base is frozen, adapters are fp32 and start as ``initial_lora`` and
    ``initial_bottlenecks`` say. Full: every weight trains; the base should be fp32 then (bf16 comes
    from autocast). Layers: the last ones of the decoder train, in fp32. ``own``: a LoRA that the
    device trains beside bottlenecks and keeps.
    """
    if adapter.kind == "full":
        return base.model.requires_grad_(True)
    if adapter.kind == "layers":
        return decoder_layers.attach(base.model, adapter.last_layers)
    if adapter.kind == "bottleneck":
        bottleneck.attach(base.model, adapter.width, seed)
        model = _attach_lora(base, own, seed) if own else base.model
        for _, parameter in shared_parameters(model, adapter.kind):
            parameter.requires_grad_(True)
        return model
    return _attach_lora(base, adapter, seed)


def _attach_lora(base: Base, adapter: AdapterSpec, seed: int) -> Any:
    shapes = lora_shapes(base.model, adapter)
    with quiet_libraries(), torch.random.fork_rng(devices=[]):  # PEFT draws a start of its own
        model = _with_lora(base, adapter)
    set_adapter(model, initial_lora(shapes, seed))
    frozen = adapter.averaging.frozen_factor
    for name, parameter in adapter_parameters(model):
        parameter.requires_grad_(factor_of(name)[1] != frozen)
    return model


def detach(model: Any) -> Any:
    """Take the adapters off again; returns the base model, its weights as they are."""
    base = model.unload() if hasattr(model, "peft_config") else model
    bottleneck.detach(base)
    return base.requires_grad_(False)


def _with_lora(base: Base, adapter: AdapterSpec) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    ranks = {
        factor_of(name)[0]: shape[0]
        for name, shape in lora_shapes(base.model, adapter).items()
        if ".lora_A." in name
    }
    unlike = {name: rank for name, rank in ranks.items() if rank != adapter.rank}
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]
        lora_dropout=adapter.dropout,
        target_modules=list(ranks) if adapter.pattern else list(adapter.targets),
        rank_pattern=unlike,
        alpha_pattern={name: adapter.scale * rank for name, rank in unlike.items()},  # type: ignore[misc]
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
        if rank := rank_of(adapter, name):
            shapes[f"{PREFIX}{name}.lora_A.weight"] = (rank, module.in_features)
            shapes[f"{PREFIX}{name}.lora_B.weight"] = (module.out_features, rank)
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
            yield _artefact_name(name), parameter


def shared_parameters(model: Any, kind: str) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Of an ``adapter.kind``: the live parameters that are the job's, not the device's own.

    All that trains but a LoRA beside bottlenecks; bottlenecks whether they are frozen or not.
    """
    if kind != "bottleneck":
        yield from trainable_parameters(model)
        return
    for name, parameter in model.named_parameters():
        if bottleneck.is_bottleneck(name):
            yield _artefact_name(name), parameter


def _artefact_name(name: str) -> str:
    """LoRA's are PEFT's; a bottleneck has the same with a LoRA around the model and without."""
    if bottleneck.is_bottleneck(name):
        return name.removeprefix(PREFIX)
    return name.replace(".default.", ".")


def adapter_parameters(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """All of LoRA's parameters under their artefact names, those that are frozen as well."""
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            yield name.replace(".default.", "."), parameter


def get_trainable(model: Any) -> dict[str, Tensor]:
    """Copies of the trainable tensors, fp32 on the CPU."""
    return {
        name: parameter.detach().to("cpu", torch.float32, copy=True)
        for name, parameter in trainable_parameters(model)
    }


def set_trainable(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Copy what trains into the model. Raises WireError where names or shapes differ."""
    _copy(dict(trainable_parameters(model)), tensors)


def set_adapter(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Copy a whole LoRA adapter into the model, what is frozen of it as well."""
    _copy(dict(adapter_parameters(model)), tensors)


def set_shared(model: Any, kind: str, tensors: Mapping[str, Tensor]) -> None:
    """Copy what is the job's into the model. Raises WireError where names or shapes differ."""
    _copy(dict(shared_parameters(model, kind)), tensors)


@torch.no_grad()
def _copy(own: Mapping[str, torch.nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
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

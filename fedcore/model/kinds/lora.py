"""LoRA adapters through peft; this is the only module that knows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcore.errors import ModelError
from fedcore.model.kinds.contract import AdapterModel
from fedcore.model.load import Base
from fedcore.model.parameters import adapter_parameters, set_adapter
from fedcore.model.quiet import quiet_libraries
from fedcore.model.received import SCALE_KEY, merged_change
from fedcore.model.skeleton import skeleton
from fedcore.model.weights import ModelSource, WeightFiles
from fedcore.seeds import derive
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.spec.options.ranks import rank_of
from fedcore.spec.overrides import PREFIX, factor_name, factor_of
from fedcore.wire.frame import FrameInfo, FrameReader, write_frame


def attach_lora(base: Base, adapter: AdapterSpec, seed: int) -> Any:
    """Put a LoRA on the base; it is fp32 and starts as ``initial_lora`` says."""
    shapes = lora_shapes(base.model, adapter)
    ranks = {factor_of(name)[0]: shape[0] for name, shape in shapes.items() if ".lora_A." in name}
    unlike = {name: rank for name, rank in ranks.items() if rank != adapter.rank}
    with quiet_libraries(), torch.random.fork_rng(devices=[]):  # PEFT draws a start of its own
        from peft import LoraConfig, TaskType, get_peft_model

        config = LoraConfig(
            task_type=TaskType.SEQ_2_SEQ_LM,
            r=adapter.rank,
            lora_alpha=adapter.alpha,  # type: ignore[arg-type]
            lora_dropout=adapter.dropout,
            target_modules=list(ranks) if adapter.pattern else list(adapter.targets),
            rank_pattern=unlike,
            alpha_pattern={name: adapter.scale * rank for name, rank in unlike.items()},  # type: ignore[misc]
        )
        model = get_peft_model(base.model, config)
    set_adapter(model, initial_lora(shapes, seed))
    frozen = adapter.averaging.frozen_factor
    for name, parameter in adapter_parameters(model):
        parameter.requires_grad_(factor_of(name)[1] != frozen)
    return model


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


def _attach(base: Base, adapter: AdapterSpec, seed: int, personal: AdapterSpec | None) -> Any:
    del personal
    return attach_lora(base, adapter, seed)


def _write(spec: JobSpec, source: ModelSource, path: Path | str, meta: dict[str, str]) -> FrameInfo:
    shapes = lora_shapes(skeleton(source), spec.adapter)
    if spec.adapter.averaging.states_scale:
        meta = {**meta, SCALE_KEY: repr(spec.adapter.scale)}
    return write_frame(path, initial_lora(shapes, spec.seed), meta)


def _merged(spec: JobSpec, name: str, files: WeightFiles, tuned: FrameReader) -> Tensor:
    weight, module = files.tensor(name).float(), name.removesuffix(".weight")
    a, b = (factor_name(module, factor) for factor in "AB")
    if a not in tuned:
        return weight
    scale = float(tuned.meta.get(SCALE_KEY, spec.adapter.scale))
    weight = weight + scale * (tuned[b] @ tuned[a])
    if factor_name(module, "MA") in tuned:
        weight = weight + merged_change(tuned, module)
    return weight


ROW = AdapterModel(attach=_attach, write=_write, merged=_merged)

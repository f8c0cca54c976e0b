"""What trains on a model: put on, taken off, and its tensors that are the job's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedcore.model.kinds.table import ADAPTER_MODELS
from fedcore.model.load import Base
from fedcore.model.parameters import Named, copy_into
from fedcore.spec.options.adapter import AdapterKind, AdapterSpec


def attach(base: Base, adapter: AdapterSpec, seed: int, personal: AdapterSpec | None = None) -> Any:
    """Make the base trainable in place and return the model to train.

    Adapters are fp32 beside a frozen base. ``personal``: a LoRA that the device trains beside them
    and does not share, where the kind takes one.
    """
    return ADAPTER_MODELS[adapter.family.kind].attach(base, adapter, seed, personal)


def detach(model: Any) -> Any:
    """Take the adapters off again; returns the base model, its weights as they are."""
    base = model.unload() if hasattr(model, "peft_config") else model
    for row in ADAPTER_MODELS.values():
        row.detach(base)
    return base.requires_grad_(False)


def shared_parameters(model: Any, kind: str) -> Named:
    """The live parameters that are the job's under an adapter kind, not the device's own."""
    return ADAPTER_MODELS[AdapterKind(kind)].shared(model)


def set_shared(model: Any, kind: str, tensors: Mapping[str, Tensor]) -> None:
    """Copy what is the job's into the model. Raises WireError where names or shapes differ."""
    copy_into(dict(shared_parameters(model, kind)), tensors)

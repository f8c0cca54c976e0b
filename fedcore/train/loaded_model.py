"""The model in a device's memory: the base stays loaded, adapters on it change with the job."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcore.architecture.sizes import Architecture
from fedcore.compute.device import PRECISION_NAMES
from fedcore.errors import ModelError
from fedcore.model.adapters import attach, detach, set_shared, shared_parameters
from fedcore.model.kinds.lora import initial_lora
from fedcore.model.load import Base, load_base
from fedcore.model.parameters import adapter_parameters, set_adapter
from fedcore.model.received import SCALE_KEY, MergedBase, adapter_of
from fedcore.model.window import set_window
from fedcore.plan.cost.step_flops import StepCost
from fedcore.plan.cost.workload import Workload
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.spec.overrides import lora_of
from fedcore.wire.frame import FrameReader


@dataclass
class LoadedModel:
    """A base model with the adapters that a specification trains.

    ``dropout`` is the checkpoint's. ``received`` are the trainable tensors as received, by artefact
    name; deltas are relative to them.
    """

    base: Base
    precision: torch.dtype
    sizes: Architecture
    dropout: float
    model: Any = None
    received: dict[str, Tensor] = field(default_factory=dict)
    _adapter: AdapterSpec | None = None
    _personal: AdapterSpec | None = None
    _merged: MergedBase = field(default_factory=MergedBase)

    @classmethod
    def of(cls, spec: JobSpec, precision: torch.dtype) -> LoadedModel:
        """Load the base of a job that trains in ``precision``."""
        base_precision = precision if spec.adapter.family.freezes_base else torch.float32
        base = load_base(spec.model.name, base_precision, spec.model.base)
        sizes = Architecture.from_config(base.source.config)
        return cls(base, precision, sizes, float(base.model.config.dropout_rate))

    def cost(self, spec: JobSpec) -> StepCost:
        """FLOPs of what the specification trains."""
        return Workload.of(spec, self.sizes, PRECISION_NAMES[self.precision]).cost

    def load_weights(self, spec: JobSpec, weights: Path | str, device: torch.device) -> None:
        """Set the model to the global weights, cut to this device's ranks and modules.

        Raises ModelError where the weights belong to another base, WireError where they do not fit.
        """
        # A reader of its own: one that stays open keeps the file's pages in memory.
        frame = FrameReader(weights)
        fingerprint = frame.meta.get("fingerprint")
        if fingerprint and fingerprint != self.base.fingerprint:
            raise ModelError(
                f"foreign base: the job's weights belong to other weights than "
                f"{spec.model.name} has on this device; fetch the model again"
            )
        personal = lora_of(spec) if spec.adapter.family.takes_personal_lora else None
        if (self._adapter, self._personal) != (spec.adapter, personal):
            if self._adapter is not None:
                detach(self.model)
            self.model = attach(self.base, spec.adapter, spec.seed, personal).to(device)
            self._adapter, self._personal = spec.adapter, personal
        set_window(self.base.model, spec.method.window)
        if not spec.adapter.family.trains_low_rank_factors:
            set_shared(self.model, spec.adapter.family.kind, frame)
            if self._personal is not None:
                shapes = {name: tuple(item.shape) for name, item in adapter_parameters(self.model)}
                set_adapter(self.model, initial_lora(shapes, spec.seed))
            self.received = {}
            return
        scale = float(frame.meta.get(SCALE_KEY, spec.adapter.scale))
        adapter = adapter_of(frame, scale, spec)
        self._merged.set(self.model, frame)
        set_adapter(self.model, adapter)
        self.received = adapter

    def delta(self, weights: Path | str) -> dict[str, Tensor]:
        """The change of each shared tensor since it was received: fp32, on the CPU.

        Personal parts of the model are left out.
        """
        assert self._adapter is not None, "no weights were loaded"
        frame = self.received or FrameReader(weights)
        return {
            name: parameter.detach().to("cpu", torch.float32) - frame[name].float()
            for name, parameter in shared_parameters(self.model, self._adapter.family.kind)
        }

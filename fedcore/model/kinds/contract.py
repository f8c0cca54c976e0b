"""What a model needs to know of an adapter kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fedcore.model.load import Base
from fedcore.model.parameters import Named, trainable_parameters
from fedcore.model.weights import ModelSource, WeightFiles
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.wire.frame import FrameInfo, FrameReader


def no_modules(model: Any) -> None:
    """Nothing was put on the model that has to be taken off."""
    del model


@dataclass(frozen=True)
class AdapterModel:
    """How one kind is put on a model, named, started, and taken home.

    ``attach(base, options, seed, personal)`` makes the base trainable in place and returns the
    model to train; ``personal`` is a LoRA that the device trains beside it and keeps, or None.
    ``write(spec, source, path, meta)`` writes the first artefact from the model's files. ``merged``
    gives one weight of the tuned model in fp32, from the base's files and the artefact. ``shared``
    yields the live parameters that are the job's. ``detach`` takes modules off the base again.
    """

    attach: Callable[[Base, AdapterSpec, int, AdapterSpec | None], Any]
    write: Callable[[JobSpec, ModelSource, Path | str, dict[str, str]], FrameInfo]
    merged: Callable[[JobSpec, str, WeightFiles, FrameReader], Tensor]
    shared: Callable[[Any], Named] = trainable_parameters
    detach: Callable[[Any], None] = no_modules

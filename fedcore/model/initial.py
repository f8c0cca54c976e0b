"""The first global artefact of a job, made from the model's files without building the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedcore.architecture.sizes import Architecture
from fedcore.model.kinds.table import ADAPTER_MODELS
from fedcore.model.load import fingerprint, resolve
from fedcore.plan.cost.kinds.table import trained_parameters
from fedcore.spec.job import JobSpec


@dataclass(frozen=True)
class InitialInfo:
    """The first global artefact: what it starts from and how large it is.

    ``parameters`` counts the base model's, ``trainable_parameters`` those that travel.
    """

    fingerprint: str
    parameters: int
    trainable_parameters: int
    architecture: Architecture
    sha256: str
    size: int


def write_initial(spec: JobSpec, path: Path | str) -> InitialInfo:
    """Write the first global weights (the adapters' start, or what trains of the model) in fp32.

    Its metadata says kind=global and the base's fingerprint; nothing else, so that equal
    specifications give equal bytes.
    """
    source = resolve(spec.model.name)
    mark = fingerprint(source.folder)
    meta = {"kind": "global", "fingerprint": mark}
    frame = ADAPTER_MODELS[spec.adapter.family.kind].write(spec, source, path, meta)
    architecture = Architecture.from_config(source.config)
    trainable = trained_parameters(architecture, spec.adapter)
    return InitialInfo(
        mark, architecture.parameters(), trainable, architecture, frame.sha256, frame.size
    )

"""The folder of a job that trained bottleneck adapters, as a person takes it home.

Standard library only: a web process zips it with the artefact, which already is
``bottleneck.safetensors``. ``fedcore.model.tuned.load_tuned`` reads it.
"""

from __future__ import annotations

import json

from fedcore.spec.job import JobSpec

CONFIG_FILE = "bottleneck.json"
WEIGHTS_FILE = "bottleneck.safetensors"
NOT_MERGED = (
    "bottleneck adapters have a GELU between their matrices, which no weight of the model can take "
    "in, so there is no merged model; take the adapter, whose folder says how to load it"
)


def config_text(spec: JobSpec) -> str:
    """What a loader must know, as JSON: the base, the width, where the adapters are."""
    values = {
        "adapter_type": "bottleneck",
        "after": "DenseReluDense",
        "activation": "gelu",
        "base_model_name_or_path": spec.model.name,
        "prefix": spec.data.prefix,
        "width": spec.adapter.width,
    }
    return json.dumps(values, indent=2, sort_keys=True) + "\n"

"""The folder of a job that trained bottleneck adapters, as a person takes it home.

Standard library only: a web process zips it with the artefact, which already is
``bottleneck.safetensors``. ``fedcore.model.tuned.load_tuned`` reads it.
"""

from __future__ import annotations

import json

from fedcore.export.contract import AdapterFolder, Export
from fedcore.spec.job import JobSpec

CONFIG_FILE = "bottleneck.json"
WEIGHTS_FILE = "bottleneck.safetensors"
NOT_MERGED = (
    "bottleneck adapters have a GELU between their matrices, which no weight of the model can take "
    "in, so there is no merged model; take the adapter, whose folder says how to load it"
)

README = """# {name}

Bottleneck adapters of width {width} for `{model}`, trained by Edgewise on {when}; their weights
have the SHA-256 `{sha256}`. transformers and PEFT know no such adapters, and they cannot be merged
into the model (there is a GELU between their matrices), so Edgewise's own loader loads them:

```python
from fedcore.model.tuned import load_tuned

model, tokenizer = load_tuned("this/folder")
inputs = tokenizer({prefix!r} + "your text", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))
```

A device of a PFTT job adds what it kept for itself: `load_tuned("this/folder", own="FILE")`.

Each adapter stands after a feed-forward block, before dropout and the residual sum:
`x + up(gelu(down(x)))`, both with biases; the names of the tensors say after which block.
"""


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


ROW = Export(AdapterFolder(WEIGHTS_FILE, CONFIG_FILE, config_text, README), NOT_MERGED)

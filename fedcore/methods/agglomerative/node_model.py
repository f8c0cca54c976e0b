"""The model that a node of a tree keeps for itself, and how its person takes it out of the folder.

``python -m fedcore.methods.agglomerative.node_model FOLDER --out MODEL`` writes a model folder from
the private folder of a job on a device.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fedcore.errors import ModelError
from fedcore.methods.round_files import LATEST_DRAW, Key, RoundFiles
from fedcore.model.export_folder import export_adapter, export_merged
from fedcore.spec.job import JobSpec
from fedcore.spec.levels import level_specs
from fedcore.spec.parse import load_spec

STEM = "own-model"
NOTE = f"{STEM}.json"  # what the weights are of: the job, and the node's level
NEWEST: Key = (10**9, LATEST_DRAW)


def note(folder: Path, spec: JobSpec, level: int) -> None:
    """Say beside the weights what they are of."""
    text = json.dumps({"level": level, "spec": spec.to_dict()}, indent=2, sort_keys=True)
    (folder / NOTE).write_text(text + "\n", "utf-8")


def export(folder: Path, out: Path) -> Path:
    """Write the newest model of a private folder for use without Edgewise; returns ``out``.

    Bottleneck adapters, which no model can take in, become a folder for
    ``fedcore.model.tuned.load_tuned``. Raises ModelError where the folder holds no such model.
    """
    weights = RoundFiles(folder, STEM).newest(NEWEST)
    try:
        told = json.loads((folder / NOTE).read_text("utf-8"))
        spec = level_specs(load_spec(told["spec"]))[int(told["level"])]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ModelError(f"{folder} is no private folder of such a job: {error}") from error
    if weights is None:
        raise ModelError(f"{folder} holds no model; its files begin with {STEM}-")
    write = export_merged if spec.adapter.family.merges_into_base else export_adapter
    return write(spec, weights, out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fedcore.methods.agglomerative.node_model")
    parser.add_argument("folder", type=Path, help="private/JOB in the device's state folder")
    parser.add_argument("--out", type=Path, required=True, help="where the model folder is written")
    given = parser.parse_args()
    print(export(given.folder, given.out))


if __name__ == "__main__":
    main()

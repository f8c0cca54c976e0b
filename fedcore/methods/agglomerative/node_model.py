"""The model that a node of a tree keeps on its device, and its export.

``python -m fedcore.methods.agglomerative.node_model FOLDER --out MODEL`` writes a model folder from
the private folder of a job on a device.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fedcore.errors import ModelError
from fedcore.export.table import EXPORTS
from fedcore.methods.round_files import LATEST_DRAW, Key, RoundFiles
from fedcore.model.export_folder import export_adapter, export_merged
from fedcore.spec.job import JobSpec
from fedcore.spec.levels import level_specs
from fedcore.spec.parse import load_spec

STEM = "own-model"
NOTE = f"{STEM}.json"  # the job and the node's level
NEWEST: Key = (10**9, LATEST_DRAW)


def write_note(folder: Path, spec: JobSpec, level: int) -> None:
    """Write the job and the node's level beside the weights."""
    text = json.dumps({"level": level, "spec": spec.to_dict()}, indent=2, sort_keys=True)
    (folder / NOTE).write_text(text + "\n", "utf-8")


def export(folder: Path, out: Path) -> Path:
    """Write the newest model of a private folder for use without Edgewise; returns ``out``.

    Bottleneck adapters cannot be merged; they become a folder for
    ``fedcore.model.tuned.load_tuned``. Raises ModelError if the folder contains no such model.
    """
    weights = RoundFiles(folder, STEM).newest(NEWEST)
    try:
        note = json.loads((folder / NOTE).read_text("utf-8"))
        spec = level_specs(load_spec(note["spec"]))[int(note["level"])]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ModelError(
            f"{folder} is not the private folder of an agglomerative job: {error}"
        ) from error
    if weights is None:
        raise ModelError(f"{folder} contains no model; name a folder with {STEM}-* files")
    write = export_adapter if EXPORTS[spec.adapter.family.kind].not_merged else export_merged
    return write(spec, weights, out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fedcore.methods.agglomerative.node_model")
    parser.add_argument("folder", type=Path, help="private/JOB in the device's state folder")
    parser.add_argument("--out", type=Path, required=True, help="where the model folder is written")
    args = parser.parse_args()
    print(export(args.folder, args.out))


if __name__ == "__main__":
    main()

"""The same job as a running one, simulated in a fresh process from the devices' own files.

``simulated`` tells of the federation, ``simulated_alone`` of each device by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.stack.conftest import Running

SIMULATION = """
import json, sys
from pathlib import Path
from fedcore.simulate.federation import simulate
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source

here = Path(sys.argv[1])
given = json.loads((here / "given.json").read_text())
devices = {name: Source(path, "dialogue", "summary") for name, path in given["data"].items()}
results = simulate(parse_spec(given["spec"]), devices, here / "work")
found = [(result.sha256, result.mean.get("loss")) for result in results]
(here / "found.json").write_text(json.dumps(found))
"""


def simulated(
    running: Running, spec: dict[str, Any], folder: Path
) -> list[tuple[str, float | None]]:
    """(SHA-256 of the global weights, mean loss where it was measured) of each round."""
    data = {name: str(path) for name, path in running.data.items()}
    (folder / "given.json").write_text(json.dumps({"spec": spec, "data": data}))
    subprocess.run([sys.executable, "-c", SIMULATION, str(folder)], check=True)
    return [(sha, loss) for sha, loss in json.loads((folder / "found.json").read_text())]


ALONE = """
import json, sys
from pathlib import Path
from fedcore.simulate.federation import simulate
from fedcore.simulate.baselines import run_alone
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source

here = Path(sys.argv[1])
given = json.loads((here / "given.json").read_text())
devices = {name: Source(path, "dialogue", "summary") for name, path in given["data"].items()}
spec = parse_spec(given["spec"])
found = run_alone(spec, devices, here / "work", simulate(spec, devices, here / "work"), {})
(here / "found.json").write_text(json.dumps(found))
"""


def simulated_alone(running: Running, spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What ``python -m fedcore.simulate --alone`` says of the same devices."""
    data = {name: str(path) for name, path in running.data.items()}
    (folder / "given.json").write_text(json.dumps({"spec": spec, "data": data}))
    subprocess.run([sys.executable, "-c", ALONE, str(folder)], check=True)
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found

"""Simulates the jobs that a real site ran, in one process beside the tests.

``python -m tests.stack.simulation`` reads a request per line, runs it and answers with a line. The
process stays, since importing torch takes longer than most of these simulations.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedcore.spec.job import JobSpec
    from fedcore.train.datasets import Source
    from tests.stack.conftest import Running

Sources = Mapping[str, "Source"]


class Simulator:
    """The process, started with the first request."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, kind: str, spec: Mapping[str, Any], data: Mapping[str, Path], work: Path) -> Any:
        """What the function of KINDS named ``kind`` returns for a job on the devices' files."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.stack.simulation"],
                # Threads that wait for one another must not take the cores from what they wait for.
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        files = {name: str(path) for name, path in data.items()}
        request = {"kind": kind, "spec": spec, "data": files, "work": str(work)}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline() or '{"error": "it has ended"}')
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def simulated(
    running: Running, spec: Mapping[str, Any], folder: Path
) -> list[tuple[str, float | None]]:
    """(SHA-256 of the global weights, mean loss where it was measured) of each round."""
    rounds = running.simulator.ask("federation", spec, running.data, folder)
    return [(sha, loss) for sha, loss in rounds]


def federation(spec: JobSpec, devices: Sources, work: Path) -> Any:
    from fedcore.simulate.federation import simulate

    results = simulate(spec, devices, work)
    return [(result.sha256, result.mean.get("loss")) for result in results]


def local_baseline(spec: JobSpec, devices: Sources, work: Path) -> Any:
    """What ``python -m fedcore.simulate --alone`` writes of the same devices."""
    from fedcore.simulate.baselines import run_baselines
    from fedcore.simulate.federation import simulate

    return run_baselines(spec, devices, work, simulate(spec, devices, work), {})


def agglomerative(spec: JobSpec, devices: Sources, work: Path) -> Any:
    """SHA-256 of each round's logits of the root, and of every node's weights after it."""
    from fedcore.simulate.agglomerative.tree_rounds import simulate_tree
    from fedcore.topology import parents_of

    logits: list[str] = []
    nodes: list[dict[str, str]] = []

    def listen(event: Any) -> None:
        if event.kind == "round":
            path = work / "level-1" / "0-says.safetensors"
            logits.append(hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "")
            nodes.append(dict(event.value.sha256))

    simulate_tree(spec, devices, work, listen, parents_of(spec.tree.parents))
    return {"logits": logits, "nodes": nodes}


KINDS: Mapping[str, Callable[[JobSpec, Sources, Path], Any]] = {
    "federation": federation,
    "local_baseline": local_baseline,
    "agglomerative": agglomerative,
}


def _answer(request: Mapping[str, Any]) -> Any:
    from fedcore.spec.parse import parse_spec
    from fedcore.train.datasets import Source

    devices = {name: Source(path, "dialogue", "summary") for name, path in request["data"].items()}
    work = Path(request["work"]) / "work"
    return KINDS[request["kind"]](parse_spec(request["spec"]), devices, work)


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever prints must not answer
    for line in sys.stdin:
        try:
            answer = {"result": _answer(json.loads(line))}
        except Exception:  # the requesting test fails with it
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

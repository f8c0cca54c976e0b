"""Devices that aggregate their cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from fedcore.aggregation.hierarchical import fold_cluster
from fedcore.aggregation.update_files import UpdateFile
from fedcore.spec.parse import parse_spec
from tests.conftest import Enrolled, Outbox
from tests.device import Pi, digest_of, weights
from tests.federation import Federation
from webapp.jobs.models import Job

TREE = {"parents": ["pi-a=hub-x", "pi-b=hub-x", "pi-c=hub-y", "pi-d=hub-y"]}
FOLDED = {"seconds": 0.1, "updates": 2}


class Hub(Pi):
    """A device that folds what it is offered."""

    folder: Path

    def answer(self, work: Mapping[str, Any]) -> None:
        if work["task"] != "fold":
            super().answer(work)
            return
        content = self.fold(work)
        assert self.upload(work["assignment"], content).status_code == 204
        answer = self.report_fold(work, content)
        assert answer.status_code == 200, answer.content

    def fold(self, work: Mapping[str, Any]) -> bytes:
        """Folds with the agent's code the updates that the server serves."""
        files = []
        for part in work["fold"]["updates"]:
            path = self.folder / part["sha256"]
            path.write_bytes(b"".join(self.download(part["sha256"]).streaming_content))  # type: ignore[attr-defined]
            assert path.stat().st_size == part["size_bytes"]
            files.append(UpdateFile(path, part["examples"], part["slot"]))
        meta = {
            "kind": "update",
            "job": work["job"],
            "round": str(work["round"]),
            "base": work["global"]["sha256"],
        }
        shapes = {name: tuple(shape) for name, shape in work["fold"]["shapes"].items()}
        out = self.folder / f"{self.name}.out"
        fold_cluster(parse_spec(work["spec"]), shapes, files, meta, out)
        return out.read_bytes()

    def report_fold(self, work: Mapping[str, Any], content: bytes, extra: int = 0) -> Any:
        examples = sum(part["examples"] for part in work["fold"]["updates"]) + extra
        body = {"update": digest_of(content), "examples": examples, "metrics": FOLDED}
        return self.act(work["assignment"], "report", body)


@pytest.fixture
def hub(
    federation: Federation,
    enrolled_device: Callable[..., Enrolled],
    outbox: Outbox,
    tmp_path: Path,
) -> Callable[..., Hub]:
    def make(name: str, role: str = "aggregator", **changes: Any) -> Hub:
        created = Hub(enrolled_device(name, 40, role), outbox, **changes)
        created.folder = tmp_path
        created.hello(f"boot-{name}")
        federation.pis.append(created)
        return created

    return make


def trainers(federation: Federation, names: str = "abcd") -> list[Pi]:
    return [
        federation.device(f"pi-{name}", number=number + 1.0, examples=10 * (number + 1))
        for number, name in enumerate(names)
    ]


def mean_step(job: Job, number: int = 1) -> float:
    """What the round has added to each weight (every test's device adds one number to all)."""
    row = job.rounds.filter(number=number, phase="closed").get()
    before, after = (weights(str(pk)) for pk in (row.base_artefact_id, row.global_artefact_id))
    steps = torch.cat([(after[name] - before[name]).flatten() for name in before])
    assert float(steps.max() - steps.min()) < 1e-5
    return float(steps.mean())


FLAT = (1 * 10 + 2 * 20 + 3 * 30 + 4 * 40) / 100


def at_the_folds(federation: Federation, **changes: Any) -> Job:
    """A job whose devices have reported, and whose clusters have been offered."""
    job = federation.started(tree=TREE, **changes)
    for pi in federation.pis:
        if not isinstance(pi, Hub):
            pi.work()
    federation.work_off()
    assert federation.round(job).phase == "folding"
    return job

"""Devices of an agglomerative job that train with the agent's trainer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedcore.simulate.agglomerative.tree_results import TreeRound
from fedcore.simulate.agglomerative.tree_rounds import simulate_tree
from fedcore.topology import parents_of
from fedcore.train.datasets import Source
from tests.conftest import Enrolled, Outbox
from tests.device import Pi, digest_of
from tests.fedcore.conftest import make_model, sentences, write_jsonl
from tests.federation import Federation
from webapp.jobs.models import Job
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.contract import Callbacks, Outcome, Received
from workers.agent.assignment.trainer import FedcoreTrainer
from workers.agent.profile import local_datasets

SILENT = Callbacks(lambda: False, lambda done, total: None, lambda values: None)
LEAVES = ("pi-a", "pi-b")
HUB = "hub"
TREE = {"parents": [f"{leaf}={HUB}" for leaf in LEAVES]}


class Node(Pi):
    """A device that does its assignments with the agent's trainer."""

    folder: Path
    rows: Path | None = None

    def start(self) -> None:
        """As a fresh agent process."""
        datasets = {"law": local_datasets.parse(f"law={self.rows}")} if self.rows else {}
        profile: dict[str, Any] = {"peak_flops": {}, "precision": "fp32"}
        self.trainer = FedcoreTrainer(
            self.folder / "cache",
            1,
            datasets,
            self.folder / "feedback",
            self.folder / "own",
            profile,
        )

    def answer(self, work: Mapping[str, Any]) -> None:
        outcome, content = self.done_for(work)
        if content is not None:
            answer = self.upload(work["assignment"], content)
            assert answer.status_code == 204, answer.content
        answer = self.report(work, outcome, content)
        assert answer.status_code == 200, answer.content

    def report(self, work: Mapping[str, Any], outcome: Outcome, content: bytes | None) -> Any:
        update = digest_of(content) if content is not None else None
        body = {"update": update, "examples": outcome.examples, "metrics": outcome.metrics}
        return self.act(work["assignment"], "report", body)

    def done_for(self, work: Mapping[str, Any]) -> tuple[Outcome, bytes | None]:
        """What its trainer makes of an accepted assignment, and the frame."""
        assigned, out = AssignedWork.read(work), self.folder / "update.safetensors"
        if assigned.task == "fold":
            assert assigned.fold_request is not None
            paths = assigned.fold_request.gather(lambda sha256, size: self.fetched(sha256))
            return self.trainer.fold(assigned, paths, out, SILENT), out.read_bytes()
        weights = self.fetched(assigned.global_sha256)
        if assigned.task == "evaluate":
            return self.trainer.evaluate(assigned, weights, SILENT), None
        return self.trainer.train(assigned, Received(weights), out, SILENT), out.read_bytes()

    def fetched(self, sha256: str) -> Path:
        answer = self.download(sha256)
        assert answer.status_code == 200, sha256
        path = self.folder / sha256
        path.write_bytes(b"".join(answer.streaming_content))  # type: ignore[attr-defined]
        return path

    def model(self, job: Job, number: int) -> Path:
        return self.folder / "own" / str(job.pk) / f"own-model-{number:06d}-000.safetensors"


@pytest.fixture(scope="session")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "larger", seed=1, d_model=48)


@pytest.fixture
def node(
    federation: Federation,
    enrolled_device: Callable[..., Enrolled],
    outbox: Outbox,
    tmp_path: Path,
) -> Callable[..., Node]:
    def make(name: str, role: str = "trainer") -> Node:
        created = Node(enrolled_device(name, 24, role), outbox, examples=24)
        created.folder = tmp_path / name
        created.folder.mkdir()
        if role != "aggregator":
            seed = len(federation.pis)
            created.rows = write_jsonl(created.folder / "law.jsonl", sentences(seed, 20 + 4 * seed))
        created.start()
        created.hello(f"boot-{name}")
        federation.pis.append(created)
        return created

    return make


@pytest.fixture
def nodes(node: Callable[..., Node]) -> dict[str, Node]:
    return {name: node(name) for name in LEAVES} | {HUB: node(HUB, "aggregator")}


def tree_options(larger: Path, **changes: Any) -> dict[str, Any]:
    """Options of a job of two rounds; ``changes`` are merged group by group."""
    values: dict[str, Any] = {
        "adapter": {"rank": 2, "dropout": 0.0},
        "method": {"name": "agglomerative"},
        "data": {"max_source_tokens": 24, "max_target_tokens": 12, "max_validation_examples": 2},
        "train": {"local_steps": 2, "batch_size": 4, "precision": "fp32", "kernels": "plain"},
        "distill": {"models": [str(larger)], "samples": 12, "top_k": 6},
        "tree": TREE,
        "rounds": 2,
        "threads": 1,
        "deterministic": True,
        "evaluation": {"every": 1},
    }
    for name, value in changes.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    return values


def simulated(federation: Federation, nodes: Mapping[str, Node], job: Job) -> list[TreeRound]:
    devices = {name: Source(str(one.rows)) for name, one in nodes.items() if one.rows}
    spec = job.job_spec
    folder = federation.folder / "simulated"
    return simulate_tree(spec, devices, folder, None, parents_of(spec.tree.parents))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def same_bits(federation: Federation, nodes: Mapping[str, Node], job: Job) -> list[TreeRound]:
    """Every node has the weights that the simulation gives it; the parent's is the job's model."""
    rounds = simulated(federation, nodes, job)
    assert {name: digest(one.model(job, 2)) for name, one in nodes.items()} == rounds[2].sha256
    assert job.global_artefact_id == rounds[2].sha256[HUB]
    return rounds


def at_the_fold(
    federation: Federation, nodes: dict[str, Node], job: Job, number: int
) -> dict[str, Any]:
    """The parent's fold of a round, accepted."""
    while True:
        federation.work_off()
        row = federation.round(job)
        if (row.number, row.phase) == (number, "folding"):
            work = nodes[HUB].take()
            nodes[HUB].done.add(work["assignment"])
            return work
        for pi in federation.pis:
            pi.work()

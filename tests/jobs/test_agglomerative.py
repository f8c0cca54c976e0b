"""Models that teach each other as a launched job: the agent's own trainers, the server's rows."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from fedcore.distill.own_model import export
from fedcore.errors import ModelError, SpecError
from fedcore.simulate.agglomerative import simulate_tree
from fedcore.simulate.agglomerative.results import TreeRound
from fedcore.train.sources import Source
from fedcore.tree import parents_of
from tests.conftest import Enrolled, Outbox
from tests.fedcore.conftest import make_model, sentences, write_jsonl
from tests.federation import Federation, Pi, digest_of
from webapp.accounts.models import User
from webapp.jobs import download, keeping, live, services
from webapp.jobs.artefacts import open_artefact
from webapp.jobs.models import Artefact, ArtefactKind, Assignment, Job
from workers.agent import datasets, private
from workers.agent.trainer import FedcoreTrainer
from workers.agent.work import Outcome, Received, Watch, Work

SILENT = Watch(lambda: False, lambda done, total: None, lambda values: None)
LEAVES = ("pi-a", "pi-b")
HUB = "hub"
TREE = {"parents": [f"{leaf}={HUB}" for leaf in LEAVES]}


class Node(Pi):
    """A device that does what it is offered with the agent's own trainer."""

    folder: Path
    rows: Path | None = None

    def start(self) -> None:
        """As a fresh agent process."""
        held = {"law": datasets.parse(f"law={self.rows}")} if self.rows else {}
        profile: dict[str, Any] = {"peak_flops": {}, "precision": "fp32"}
        self.trainer = FedcoreTrainer(
            self.folder / "cache", 1, held, self.folder / "feedback", self.folder / "own", profile
        )

    def answer(self, work: Mapping[str, Any]) -> None:
        outcome, content = self.done_for(work)
        if content is not None:
            answer = self.upload(work["assignment"], content)
            assert answer.status_code == 204, answer.content
        answer = self.told(work, outcome, content)
        assert answer.status_code == 200, answer.content

    def told(self, work: Mapping[str, Any], outcome: Outcome, content: bytes | None) -> Any:
        update = digest_of(content) if content is not None else None
        body = {"update": update, "examples": outcome.examples, "metrics": outcome.metrics}
        return self.act(work["assignment"], "report", body)

    def done_for(self, work: Mapping[str, Any]) -> tuple[Outcome, bytes | None]:
        """What its trainer makes of an accepted assignment, and the frame."""
        given, out = Work.read(work), self.folder / "update.safetensors"
        if given.task == "fold":
            assert given.cluster is not None
            paths = given.cluster.gather(lambda sha256, size: self.fetched(sha256))
            return self.trainer.fold(given, paths, out, SILENT), out.read_bytes()
        weights = self.fetched(given.global_sha256)
        if given.task == "evaluate":
            return self.trainer.evaluate(given, weights, SILENT), None
        return self.trainer.train(given, Received(weights), out, SILENT), out.read_bytes()

    def fetched(self, sha256: str) -> Path:
        answer = self.download(sha256)
        assert answer.status_code == 200, sha256
        path = self.folder / sha256
        path.write_bytes(b"".join(answer.streaming_content))  # type: ignore[attr-defined]
        return path

    def model(self, job: Job, number: int) -> Path:
        return self.folder / "own" / str(job.pk) / f"own-model-{number:06d}-000.safetensors"


@pytest.fixture(scope="module")
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
        made = Node(enrolled_device(name, 24, role), outbox, examples=24)
        made.folder = tmp_path / name
        made.folder.mkdir()
        if role != "aggregator":
            seed = len(federation.pis)
            made.rows = write_jsonl(made.folder / "law.jsonl", sentences(seed, 20 + 4 * seed))
        made.start()
        made.hello(f"boot-{name}")
        federation.pis.append(made)
        return made

    return make


@pytest.fixture
def nodes(node: Callable[..., Node]) -> dict[str, Node]:
    return {name: node(name) for name in LEAVES} | {HUB: node(HUB, "aggregator")}


def told(larger: Path, **changes: Any) -> dict[str, Any]:
    """What a launched job of two rounds says; ``changes`` group by group."""
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


def test_a_launched_tree_makes_the_simulations_bits(
    federation: Federation, nodes: dict[str, Node], larger: Path
) -> None:
    job = federation.run(federation.launch(**told(larger)))
    assert job.phase == "completed", job.reason
    rounds = same_bits(federation, nodes, job)
    first, one, two = job.rounds.order_by("number")
    # Devices are evaluated with their own models, the parent on the held-back part of the bridge.
    for row, found in zip((first, one, two), rounds, strict=True):
        assert row.evaluation["loss"] == pytest.approx(found.levels[0].mean["loss"], rel=1e-6)
    hub = Assignment.objects.get(round=two, task="fold")
    cloud = rounds[2].levels[1].evaluations[HUB]
    assert hub.metrics["bridge_loss"] == pytest.approx(cloud.loss, rel=1e-9)
    assert two.fold["clusters"][0]["slots"] == [0, 1] and two.fold["slots"] == [2]
    # Only what models say travels, but for the parent's own in the end.
    sent = Artefact.objects.filter(kind=ArtefactKind.UPDATE)
    shapes = [set(read_stored(item.pk)) for item in sent]
    assert len(shapes) == 6 and shapes.count({"values", "places", "rest"}) == 5
    assert "hub, round 2: learned from pi-a, pi-b: " in federation.log(job)


def read_stored(sha256: str) -> dict[str, Any]:
    with open_artefact(Artefact.objects.get(pk=sha256)) as source:
        return load(source.read())


def test_the_parents_model_is_taken_home_once_it_is_there(
    federation: Federation, nodes: dict[str, Node], larger: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSeq2SeqLM

    job = federation.launch(**told(larger))
    while federation.round(job).number < 2:
        for pi in federation.pis:
            pi.work()
        federation.work_off()
    job.refresh_from_db()
    assert live.snapshot(job)["artefacts"]["merged_url"] is None
    with pytest.raises(download.NoModel, match="parent sends its model in the last round"):
        download.model_after(job, None)
    with pytest.raises(services.MoveRefused, match="has made no model"):
        keeping.pin(job.rounds.get(number=1).pk, User.objects.create_user("anna"))

    job = federation.run(job)
    urls = live.snapshot(job)["artefacts"]
    assert urls["merged_url"] and urls["adapter_url"] is None  # every weight of the parent trains
    services.request_merged(job)
    federation.work_off()
    job.refresh_from_db()
    assert job.merged_artefact is not None
    with open_artefact(job.merged_artefact) as source:
        zipfile.ZipFile(io.BytesIO(source.read())).extractall(tmp_path / "taken")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "taken")
    trained = load(nodes[HUB].model(job, 2).read_bytes())
    assert model.config.d_model == 48
    assert torch.equal(model.state_dict()["shared.weight"], trained["shared.weight"])


def test_a_leafs_model_is_taken_out_of_its_private_folder(
    federation: Federation, nodes: dict[str, Node], larger: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSeq2SeqLM

    from fedcore.plan.wire_offer import WireOffer

    job = federation.run(federation.launch(**told(larger)))
    folder = nodes["pi-a"].folder / "own"
    before = {path.name for path in (folder / str(job.pk)).iterdir()}
    assert {"own-model-000001-000.safetensors", "bridge.jsonl"} < before
    private.tidy(folder, WireOffer(jobs=frozenset()))  # the job is over
    left = {path.name for path in (folder / str(job.pk)).iterdir()}
    assert left == {"own-model-000002-000.safetensors", "own-model.json"}
    out = export(folder / str(job.pk), tmp_path / "out")
    model = AutoModelForSeq2SeqLM.from_pretrained(out)
    base = AutoModelForSeq2SeqLM.from_pretrained(federation.model)
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"  # adapted
    assert model.config.d_model == 32
    assert not torch.equal(model.state_dict()[name], base.state_dict()[name])
    with pytest.raises(ModelError, match="no private folder of such a job"):
        export(tmp_path, tmp_path / "other")


def mend(content: bytes, **changes: Any) -> bytes:
    """A frame with other metadata or tensors."""
    from safetensors import safe_open

    path = Path(changes.pop("folder")) / "mended.safetensors"
    path.write_bytes(content)
    with safe_open(path, "pt") as frame:
        meta = dict(frame.metadata())
    tensors = load(content)
    changes.get("tensors", lambda _: None)(tensors)
    return save(tensors, {**meta, **changes.get("meta", {})})


def fewer(tensors: dict[str, Any]) -> None:
    tensors["values"] = tensors["values"][:-1].clone()


def none_at_all(tensors: dict[str, Any]) -> None:
    tensors["values"] = torch.full_like(tensors["values"], -9.0)


def without_one(tensors: dict[str, Any]) -> None:
    tensors.pop(sorted(tensors)[0])


def renamed(tensors: dict[str, Any]) -> None:
    tensors["mine"] = tensors.pop(sorted(tensors)[0])


def unsound(tensors: dict[str, Any]) -> None:
    tensors[sorted(tensors)[0]].fill_(float("nan"))


WRONG = (
    ({"meta": {"kind": "update"}}, "kind is 'update', not 'bridge-logits'"),
    ({"meta": {"round": "2"}}, "round is '2', not '1'"),
    ({"meta": {"bridge": "0" * 64}}, "the frame says bridge='000"),
    ({"meta": {"temperature": "1.0"}}, "temperature='1.0' where '2.0' is due"),
    ({"tensors": fewer}, "does not hold 6 tokens of each of"),
)


def test_what_a_leaf_sends_is_checked_by_its_header(
    federation: Federation, nodes: dict[str, Node], larger: Path
) -> None:
    federation.started(**told(larger))
    leaf = nodes["pi-a"]
    work = leaf.take()
    outcome, content = leaf.done_for(work)
    assert content is not None
    for changes, message in WRONG:
        bad = mend(content, folder=leaf.folder, **changes)
        answer = leaf.upload(work["assignment"], bad)
        assert answer.status_code == 422 and message in answer.json()["detail"], answer.content
    big = content + b"0" * 100_000
    assert leaf.upload(work["assignment"], big).status_code == 413
    other = leaf.upload(work["assignment"], content, "0" * 64)
    assert other.status_code == 422 and "SHA-256" in other.json()["detail"]
    assert leaf.upload(work["assignment"], content).status_code == 204
    assert leaf.told(work, outcome, content).status_code == 200


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


def test_a_parents_word_must_be_one(
    federation: Federation, nodes: dict[str, Node], larger: Path
) -> None:
    """Its numbers are looked at before any child hears them."""
    job = federation.started(**told(larger))
    hub = nodes[HUB]
    work = at_the_fold(federation, nodes, job, 1)
    outcome, content = hub.done_for(work)
    assert content is not None
    bad = mend(content, folder=hub.folder, tensors=none_at_all)
    assert hub.upload(work["assignment"], bad).status_code == 204
    assert hub.told(work, outcome, bad).status_code == 200
    federation.work_off()
    job.refresh_from_db()
    assert job.phase == "failed"
    assert "hub sent no usable frame: a row's probabilities do not add up to 1" in job.reason


@pytest.mark.parametrize(
    ("tensors", "message"),
    [(renamed, "not those of the parent's model"), (unsound, "not finite")],
)
def test_the_parents_model_must_be_its_model(
    federation: Federation, nodes: dict[str, Node], larger: Path, tensors: Any, message: str
) -> None:
    job = federation.started(**told(larger, evaluation={"every": 0, "initial": False}))
    hub = nodes[HUB]
    work = at_the_fold(federation, nodes, job, 2)
    outcome, content = hub.done_for(work)
    assert content is not None
    short = hub.upload(work["assignment"], mend(content, folder=hub.folder, tensors=without_one))
    assert short.status_code == 422 and "numbers where" in short.json()["detail"]
    foreign = mend(content, folder=hub.folder, meta={"fingerprint": "0" * 64})
    assert hub.upload(work["assignment"], foreign).status_code == 422
    bad = mend(content, folder=hub.folder, tensors=tensors)
    assert hub.upload(work["assignment"], bad).status_code == 204
    assert hub.told(work, outcome, bad).status_code == 200
    federation.work_off()
    job.refresh_from_db()
    assert job.phase == "failed" and message in job.reason


def test_a_parent_that_is_away_is_waited_for(
    federation: Federation, nodes: dict[str, Node], larger: Path
) -> None:
    job = federation.started(**told(larger))
    federation.lose(nodes[HUB])
    for leaf in LEAVES:
        nodes[leaf].work()
    federation.work_off()
    assert federation.round(job).phase == "folding" and not federation.parts(job, "fold")
    nodes[HUB].hello("boot-again")
    nodes[HUB].start()
    job = federation.run(job)
    assert job.phase == "completed", job.reason
    same_bits(federation, nodes, job)


def test_a_parent_that_stays_away_ends_the_job_and_a_retry_gives_the_same_bits(
    federation: Federation, nodes: dict[str, Node], larger: Path
) -> None:
    job = federation.started(**told(larger))
    hub = nodes[HUB]
    work = at_the_fold(federation, nodes, job, 2)
    hub.done_for(work)  # it has learned and kept its model, and is never heard of again
    federation.later(20_000)
    federation.lose(hub)
    federation.reconcile()
    job.refresh_from_db()
    assert job.phase == "failed"
    assert "nobody but hub can fold" in job.reason and "by the deadline" in job.reason
    hub.start()
    hub.hello("boot-again")
    for leaf in LEAVES:
        nodes[leaf].hello(f"boot-{leaf}")
    services.move(job.pk, "retry", None)
    job = federation.run(job)
    assert job.phase == "completed", job.reason
    assert federation.round(job).attempt == 2
    same_bits(federation, nodes, job)


def test_one_child_is_enough(
    federation: Federation, node: Callable[..., Node], larger: Path
) -> None:
    nodes = {"pi-a": node("pi-a"), HUB: node(HUB, "aggregator")}
    job = federation.run(federation.launch(**told(larger, tree={"parents": ["auto"]})))
    assert job.phase == "completed", job.reason
    assert (
        digest(nodes["pi-a"].model(job, 2)) == simulated(federation, nodes, job)[2].sha256["pi-a"]
    )


def test_devices_below_no_parent_are_no_part_of_it(
    federation: Federation, nodes: dict[str, Node], node: Callable[..., Node], larger: Path
) -> None:
    """Where the job names no devices, the tree does."""
    node("pi-c")
    job = federation.launch(**told(larger))
    assert sorted(job.participants.values_list("device__name", flat=True)) == [HUB, *LEAVES]


REFUSED: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"tree": {"parents": []}}, "tree.parents", "say who is above whom"),
    ({"distill": {"models": ["a", "b"]}}, "distill.models", "one level above the devices so far"),
    ({"distill": {"bridge": "law"}}, "distill.bridge", "take dialogues or"),
    (
        {"tree": {"parents": ["pi-a=hub", "pi-b=pi-a"]}},
        "tree.parents",
        "hub, pi-a are 2 parents; name one",
    ),
    (
        {"tree": {"parents": ["pi-a=hub"]}, "participation": {"devices": list(LEAVES)}},
        "tree.parents",
        "pi-b has no parent; name one",
    ),
    (
        {"tree": {"parents": ["pi-a=pi-b"]}},
        "tree.parents",
        "no device of this job is called",
    ),
)


@pytest.mark.parametrize(("changes", "path", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_what_cannot_be_launched_is_refused_with_the_way_out(
    federation: Federation,
    nodes: dict[str, Node],
    larger: Path,
    changes: dict[str, Any],
    path: str,
    message: str,
) -> None:
    with pytest.raises(SpecError) as caught:
        services.create_job(federation.spec(**told(larger, **changes)), None)
    found = [fault for fault in caught.value.faults if fault.path == path]
    assert any(message in fault.message for fault in found), caught.value
    assert not Job.objects.exists()


def test_auto_needs_one_parent_that_holds_no_data_itself(
    federation: Federation, nodes: dict[str, Node], node: Callable[..., Node], larger: Path
) -> None:
    auto = told(larger, tree={"parents": ["auto"]})
    node("hub-2", "aggregator")
    with pytest.raises(SpecError, match="hub, hub-2 are 2 parents"):
        services.create_job(federation.spec(**auto), None)


def test_a_parent_that_left_before_the_first_round_ends_the_job(
    federation: Federation, nodes: dict[str, Node], larger: Path
) -> None:
    from webapp.devices.services import revoke

    job = services.create_job(federation.spec(**told(larger)), None)
    revoke(nodes[HUB].device, None)
    federation.work_off()
    job.refresh_from_db()
    assert job.phase == "failed" and "pi-a has no parent; name one" in job.reason


def test_models_of_another_vocabulary_fail_the_job_before_it_begins(
    federation: Federation, nodes: dict[str, Node], tmp_path: Path
) -> None:
    other = make_model(tmp_path / "other", vocab_size=70)
    job = federation.launch(**told(other))
    job.refresh_from_db()
    assert job.phase == "failed" and "share one vocabulary" in job.reason

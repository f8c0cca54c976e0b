"""End, edge and cloud in one process: what travels, what is learned, that it can be repeated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedcore.dialogues.examples import generate
from fedcore.errors import DataError, ModelError, SpecError
from fedcore.formats.frame_header import read_header
from fedcore.formats.logits_header import payload_bytes
from fedcore.methods.agglomerative.bridge_data import SEED, SEEN, bridge_source
from fedcore.methods.distillation.bridge import Bridge
from fedcore.methods.session import Session
from fedcore.simulate.__main__ import main
from fedcore.simulate.agglomerative.leaves import simulate_leaves
from fedcore.simulate.agglomerative.tree_rounds import simulate_tree
from fedcore.simulate.results import SimulationEvent
from fedcore.spec.job import JobSpec
from fedcore.spec.levels import level_specs
from fedcore.spec.options.distill import DistillSpec
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source
from tests.fedcore.conftest import make_model, sentences, spec_of, write_jsonl

DEVICES = ("kitchen", "attic", "barn")
TOP_K = 6


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "larger"
    return make_model(folder, seed=1, d_model=48, num_layers=3)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Source]:
    return {
        name: Source(str(write_jsonl(tmp_path / f"{name}.jsonl", sentences(seed, 20 + 4 * seed))))
        for seed, name in enumerate(DEVICES)
    }


@pytest.fixture
def shared(tmp_path: Path) -> str:
    return str(write_jsonl(tmp_path / "shared.jsonl", sentences(9, 24)))


def tree_spec(tiny: Path, models: list[Path], shared: str, **changes: object) -> JobSpec:
    distill = {"models": [str(model) for model in models], "bridge": shared, "top_k": TOP_K}
    options = changes.pop("distill", {})
    return spec_of(
        tiny,
        method={"name": "agglomerative"},
        distill={**distill, **options},
        **changes,  # type: ignore[dict-item]
    )


def test_two_levels_send_only_packed_logits(
    tiny: Path, larger: Path, tmp_path: Path, sources: dict[str, Source], shared: str
) -> None:
    spec = tree_spec(tiny, [larger], shared)
    results = simulate_tree(spec, sources, tmp_path / "run")
    assert [item.number for item in results] == [0, 1, 2]
    end, cloud = results[2].levels
    assert (end.name, cloud.name) == ("end", "cloud")
    assert set(end.evaluations) == set(DEVICES) and set(cloud.evaluations) == {"cloud"}
    bridge = Bridge.of(Session(tmp_path / "c", 1).prepare(spec, Source(shared)).train)
    output = tmp_path / "run" / "level-0" / "0-says.safetensors"
    header = read_header(output)
    size = output.stat().st_size
    assert set(header.tensors) == {"values", "places", "rest"}
    assert size - header.data_start == payload_bytes(bridge.rows, TOP_K, 64)
    # Nobody listens to a parent that has learned nothing.
    assert [(link.bytes_up, link.bytes_down) for link in results[1].links] == [(size, 0)] * 3
    assert [(link.bytes_up, link.bytes_down) for link in results[2].links] == [(size, size)] * 3
    assert results[2].bytes_up == 3 * size
    assert json.loads(json.dumps(results[2].to_dict()))["levels"][1]["mean"]["loss"] > 0
    seen: list[SimulationEvent] = []
    below = simulate_leaves(spec, sources, tmp_path / "again", seen.append)
    assert [item.bytes_up for item in below] == [0, 3 * size, 3 * size]
    assert below[2].evaluations.keys() == set(DEVICES) == below[2].training.keys()
    assert below[2].mean == results[2].levels[0].mean
    assert [event.value for event in seen] == below


def test_tree_is_deterministic_by_seed(
    tiny: Path, larger: Path, tmp_path: Path, sources: dict[str, Source], shared: str
) -> None:
    del sources["barn"]
    never = {"every": 0, "initial": False}

    def weights(folder: str, **changes: object) -> dict[str, str]:
        spec = tree_spec(tiny, [larger], shared, evaluation=never, **changes)
        return dict(simulate_tree(spec, sources, tmp_path / folder)[-1].sha256)

    first = weights("1")
    assert first == weights("2")
    other = weights("3", seed=4)
    assert all(first[name] != other[name] for name in first)
    # The parent's logits reach the leaves, and the leaves' logits reach the parent.
    deaf = weights("4", distill={"beta": 0.0})
    assert all(first[name] != deaf[name] for name in first)
    alone = weights("5", distill={"gamma": 0.0})
    assert all(first[name] != alone[name] for name in first)


def test_three_levels_train_and_report(
    tiny: Path, larger: Path, tmp_path: Path, sources: dict[str, Source], shared: str
) -> None:
    spec = tree_spec(tiny, [larger, larger], shared, distill={"children": 2})
    results = simulate_tree(spec, sources, tmp_path / "run")
    assert [level.name for level in results[2].levels] == ["end", "edge", "cloud"]
    assert set(results[2].levels[1].evaluations) == {"edge-0", "edge-1"}
    assert {link.child: link.parent for link in results[2].links} == {
        "attic": "edge-0", "barn": "edge-0", "kitchen": "edge-1", "edge-0": "cloud",
        "edge-1": "cloud",
    }  # fmt: skip
    assert all(link.bytes_down for link in results[2].links)
    # Edges are fed by different leaves, so they come to differ.
    assert results[0].sha256["edge-0"] == results[0].sha256["edge-1"]
    assert results[1].sha256["edge-0"] != results[1].sha256["edge-1"]


def test_parent_learns_from_children_and_bridge(
    tiny: Path, larger: Path, tmp_path: Path, sources: dict[str, Source], shared: str
) -> None:
    spec = tree_spec(
        tiny, [larger], shared, train={"local_steps": 8, "learning_rate": 0.02},
        evaluation={"every": 0}, distill={"parent_learning_rate": 0.005, "parent_steps": 16},
    )  # fmt: skip
    del sources["barn"]
    results = simulate_tree(spec, sources, tmp_path / "run")
    assert not results[1].levels[0].evaluations
    for level in (0, 1):
        first, last = (results[at].levels[level].mean["loss"] for at in (0, 2))
        assert last < 0.95 * first
    assert results[1].levels[1].training["cloud"].steps == 16


def test_explicit_parents_define_the_tree(
    tiny: Path, larger: Path, tmp_path: Path, sources: dict[str, Source], shared: str
) -> None:
    spec = tree_spec(tiny, [larger], shared, rounds=1)
    parents = dict.fromkeys(DEVICES, "hall")
    result = simulate_tree(spec, sources, tmp_path / "run", parents=parents)[-1]
    assert {link.parent for link in result.links} == {"hall"}
    del parents["barn"]
    with pytest.raises(SpecError, match="barn has no parent"):
        simulate_tree(spec, sources, tmp_path / "run", parents=parents)


def test_bad_models_and_bridges_are_refused(
    tiny: Path, larger: Path, tmp_path: Path, sources: dict[str, Source], shared: str
) -> None:
    foreign = make_model(tmp_path / "foreign", vocab_size=65)
    with pytest.raises(ModelError, match=r"these differ \(.*tiny 64, .*foreign 65 tokens\)"):
        simulate_tree(tree_spec(tiny, [foreign], shared), sources, tmp_path / "1")
    with pytest.raises(SpecError, match=r"distill\.top_k: 65 is more than the 64 tokens of"):
        spec = tree_spec(tiny, [larger], shared, distill={"top_k": 65})
        simulate_tree(spec, sources, tmp_path / "2")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    blank = write_jsonl(tmp_path / "blank.jsonl", [{"text": " ", "summary": ""}] * 9)
    for path in (empty, blank):
        with pytest.raises(DataError, match=r"empty|holds no example"):
            simulate_tree(tree_spec(tiny, [larger], str(path)), sources, tmp_path / "3")
    with pytest.raises(DataError, match="no domain moon; known: clinic"):
        simulate_tree(tree_spec(tiny, [larger], "dialogues:moon"), sources, tmp_path / "4")


def test_different_tokenizers_are_refused(
    tiny: Path, tmp_path: Path, sources: dict[str, Source], shared: str
) -> None:
    other = make_model(tmp_path / "other")
    path = other / "tokenizer.json"
    path.write_text(path.read_text().replace('"anna"', '"annA"'), "utf-8")
    with pytest.raises(ModelError, match=r"other reads the bridge as other tokens than .*tiny"):
        simulate_tree(tree_spec(tiny, [other], shared), sources, tmp_path / "1")


FAULTS = [
    ({"distill": {"models": []}}, "distill.models"),
    ({"distill": {"temperature": 0}}, "distill.temperature"),
    ({"distill": {"top_k": 0}}, "distill.top_k"),
    ({"distill": {"samples": 0}}, "distill.samples"),
    ({"participation": {"mode": "buffered"}}, "participation.mode"),
    ({"participation": {"fraction": 0.5}}, "participation.fraction"),
    ({"strategy": {"name": "fedadam"}}, "strategy.name"),
    ({"adapter": {"aggregation": "ffa"}}, "adapter.aggregation"),
    ({"tree": {"parents": ["a=b", "b=a"]}}, "tree.parents"),
    ({"wire": {"uplink": "int8"}}, "wire.uplink"),
]


@pytest.mark.parametrize(("values", "path"), FAULTS)
def test_invalid_agglomerative_options_are_refused(values: dict[str, object], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({"method": {"name": "agglomerative"}, **values})
    assert path in [fault.path for fault in caught.value.faults]


def test_levels_have_their_own_models_and_rates() -> None:
    spec = parse_spec({
        "model": {"base": "int8"}, "distill": {"models": ["micro", "a/b"], "parent_steps": 7},
        "method": {"name": "agglomerative"}, "train": {"local_steps": 3},
    })  # fmt: skip
    leaf, edge, cloud = level_specs(spec)
    assert leaf == spec
    assert (edge.model.name, cloud.model.name) == ("micro", "a/b")
    assert (edge.adapter.kind, edge.model.base, edge.train.local_steps) == ("full", "auto", 7)
    assert edge.train.learning_rate == 1e-3


def test_packaged_bridge_is_reproducible(tmp_path: Path) -> None:
    def rows(folder: str, **changes: object) -> list[dict[str, str]]:
        source = bridge_source(DistillSpec(**changes), tmp_path / folder)  # type: ignore[arg-type]
        return [json.loads(line) for line in source.path.read_text("utf-8").splitlines()]

    actual = rows("1", samples=30)
    assert actual == rows("2", samples=30) and len(actual) == 30
    assert rows("3", samples=12) == actual[:12]
    assert actual[0]["text"] == next(iter(generate(SEEN[0], 1, SEED))).dialogue
    clinic = rows("4", samples=3, bridge="dialogues:clinic")
    assert [row["summary"] for row in clinic] == [e.summary for e in generate("clinic", 3, SEED)]


def test_command_prints_levels_links_and_flat_rounds(
    tiny: Path, larger: Path, tmp_path: Path, shared: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", sentences(1, 24))
    out = tmp_path / "out.json"
    common = ["--method", "agglomerative", "--model", str(tiny), "--data", str(data),
              "--devices", "2", "--rounds", "1", "--local-steps", "1", "--batch-size", "4",
              "--max-source-tokens", "32", "--max-target-tokens", "12", "--precision", "fp32",
              "--max-validation-examples", "2", "--threads", "1", "--bridge", shared,
              "--models-above", str(larger)]  # fmt: skip
    assert main([*common, "--set", "distill.top_k=4", "--json", str(out)]) == 0
    text = capsys.readouterr().out
    assert text.count("cloud   cloud") == 2 and "flat averaging:" in text
    assert "device-0 -> cloud" in text and "rougeL, flat" in text
    actual = json.loads(out.read_text())
    assert [len(actual[key]) for key in ("rounds", "flat")] == [2, 2]
    end = actual["rounds"][0]["levels"][0]["mean"]
    assert end["loss"] == pytest.approx(actual["flat"][0]["mean"]["loss"])  # both begin alike
    tree = ["--tree", "device-0=hall,device-1=device-0", "--without-flat"]
    assert main([*common, "--set", "distill.top_k=4", *tree]) == 2
    output = capsys.readouterr().err
    assert "tree.parents: device-0 holds data and cannot be a parent too" in output
    assert main([*common, "--speeds", "1,2"]) == 2
    assert "have no virtual clock" in capsys.readouterr().err
    assert main([*common, "--set", "distill.top_k=100"]) == 2
    assert "distill.top_k: 100 is more than the 64 tokens" in capsys.readouterr().err

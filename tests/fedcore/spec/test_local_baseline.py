"""Training alone: the specification it runs by, its laws, and what the command tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedcore.errors import SpecError
from fedcore.formats.frame_header import sha256_file
from fedcore.methods.session import Session
from fedcore.simulate.__main__ import main
from fedcore.simulate.federation import simulate, simulate_baseline
from fedcore.simulate.results import global_file
from fedcore.spec.job import JobSpec
from fedcore.spec.local_baseline import (
    Compared,
    Gain,
    Score,
    alone_seat,
    alone_spec,
    gained,
    summary,
)
from fedcore.spec.options.participation import ParticipationSpec
from fedcore.spec.overrides import Member, tailoring
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source
from fedcore.train.evaluate import Evaluation
from tests.fedcore.conftest import sentences, spec_of, write_jsonl

MIXED = {"rank": 4, "aggregation": "flexlora", "ranks": ["1", "pi=2", "4"]}
# Of others in every group that knows any: strategy, method, tree, wire, participation.
SOCIAL: dict[str, object] = {
    "strategy": {"name": "fedadam", "server_learning_rate": 0.01, "clip_update_norm": 1.0},
    "method": {"name": "fedjudge"},
    "wire": {"uplink": "int8", "downlink": "bf16"},
    "participation": {"devices": ["a", "pi"], "fraction": 0.5, "minimum": 2, "deadline_s": 77.0},
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Source]:
    return {
        name: Source(str(write_jsonl(tmp_path / f"{name}.jsonl", sentences(seed, 24))))
        for seed, name in enumerate(("attic", "barn", "pi"))
    }


def test_what_is_about_others_goes_and_the_rest_stays(tiny: Path) -> None:
    spec = spec_of(tiny, **SOCIAL)
    alone = alone_spec(spec, "pi")
    plain = JobSpec()
    for group in ("strategy", "method", "distill", "tree"):
        assert getattr(alone, group) == getattr(plain, group), group
    for name in ("model", "adapter", "data", "train", "evaluation", "rounds", "seed", "threads"):
        assert getattr(alone, name) == getattr(spec, name), name
    assert alone.participation == ParticipationSpec(devices=("pi",), deadline_s=77.0)
    assert (alone.wire.uplink, alone.wire.downlink) == ("fp32", "fp32")
    assert parse_spec(alone.to_dict()) == alone


def test_the_name_says_whose_it_is_and_stays_a_name() -> None:
    assert alone_spec(JobSpec(name="law"), "pi").name == "law: pi alone"
    long = alone_spec(JobSpec(name="n" * 120), "d" * 100)
    assert len(long.name) == 120 and long.name.endswith("d alone")
    assert parse_spec(long.to_dict()) == long


@pytest.mark.parametrize(
    "changes",
    [
        {"participation": {"mode": "buffered", "buffer_size": 2, "max_staleness": 3}},
        {"strategy": {"name": "scaffold"}, "train": {"optimizer": "sgd", "learning_rate": 0.1}},
        {"tree": {"parents": ["a=b"]}},
        {"adapter": {"kind": "bottleneck"}, "method": {"name": "pftt", "own_ranks": ["2"]}},
        {"adapter": {"kind": "layers"}, "method": {"name": "pfit", "weights": ["1"]}},
        {"wire": {"uplink": "int8", "top_k": 0.1}},
    ],
)
def test_every_kind_of_job_has_a_counterpart_that_is_sound(tiny: Path, changes: object) -> None:
    spec = spec_of(tiny, **changes)  # type: ignore[arg-type]
    alone = alone_spec(spec, "pi")
    assert parse_spec(alone.to_dict()) == alone
    assert alone_spec(alone, "pi").to_dict() | {"name": ""} == alone.to_dict() | {"name": ""}


def test_agglomerative_is_refused_with_the_reason() -> None:
    spec = parse_spec({"method": {"name": "agglomerative"}, "model": {"name": "nano"}})
    with pytest.raises(SpecError, match="agglomerative devices learn from the larger models"):
        alone_spec(spec, "pi")


def test_the_seat_keeps_ranks_and_drops_the_method() -> None:
    seat = alone_seat(2, {"adapter.rank": 2, "train.batch_size": 3, "method.own_rank": 4})
    assert (seat.slot, dict(seat.tailoring)) == (2, {"adapter.rank": 2, "train.batch_size": 3})


ALIKE: list[dict[str, object]] = [
    {},
    {"adapter": {"rank": 4, "aggregation": "flexlora", "ranks": ["2"], "modules": ["q"]}},
    {"adapter": {"rank": 2, "aggregation": "fedex"}},
    {"adapter": {"kind": "full"}},
]


@pytest.mark.parametrize("changes", ALIKE, ids=["fedit", "flexlora", "fedex", "full"])
def test_with_one_device_federated_is_alone_bit_for_bit(
    tiny: Path, tmp_path: Path, files: dict[str, Source], changes: dict[str, object]
) -> None:
    spec = spec_of(tiny, **changes)
    together = simulate(spec, {"pi": files["pi"]}, tmp_path / "together")
    seat = alone_seat(0, tailoring(spec, Member(0, "pi")))
    alone = simulate_baseline(spec, "pi", files["pi"], seat, tmp_path / "alone")
    assert [item.sha256 for item in alone] == [item.sha256 for item in together]
    assert [item.mean for item in alone] == [item.mean for item in together]
    assert alone[-1].sha256 != alone[0].sha256


def test_baseline_first_round_matches_federated_round(
    tiny: Path, tmp_path: Path, files: dict[str, Source]
) -> None:
    """By hand: the first weights and what a session trains from them as the device of slot 2."""
    spec = spec_of(tiny, adapter=MIXED, rounds=1)
    together = simulate(spec, files, tmp_path / "together")
    seat = alone_seat(2, tailoring(spec, Member(2, "pi")))
    assert seat.tailoring["adapter.rank"] == 2
    alone = simulate_baseline(spec, "pi", files["pi"], seat, tmp_path / "alone")
    assert alone[0].sha256 == together[0].sha256
    assert alone[1].training["pi"].loss == together[1].training["pi"].loss
    other = simulate_baseline(
        spec, "pi", files["pi"], alone_seat(0, seat.tailoring), tmp_path / "0"
    )
    assert other[1].sha256 != alone[1].sha256


def test_both_are_measured_on_the_same_examples(
    tiny: Path, tmp_path: Path, files: dict[str, Source]
) -> None:
    spec = spec_of(tiny, **SOCIAL | {"participation": {}})
    session = Session(tmp_path / "cache")
    one = session.prepare(spec, files["pi"])
    two = session.prepare(alone_spec(spec, "pi"), files["pi"])
    assert one.references == two.references and one.examples == two.examples


def test_gains_by_hand() -> None:
    a = Compared("a", Score(30.0, 2.0), Score(33.0, 1.5), Score(31.0, 2.25))
    b = Compared("b", Score(30.0, 2.0), None, Score(26.0, 2.5))
    c = Compared("c", Score(30.0, 2.0))
    assert a.gain == Gain(-1.0, 0.25) and a.own_gain == Gain(2.0, 0.75)
    assert c.gain is None and c.to_dict()["gain"] is None
    gains = summary([a, b, c])
    assert gains["shared"] == {
        "devices": 2, "mean": 1.5, "mean_loss": 0.375, "worst": -1.0, "worst_device": "a",
        "gained": 1,
    }  # fmt: skip
    assert gains["own"]["devices"] == 1 and gains["own"]["mean"] == 2.0
    assert gained({}) is None and summary([c]) == {"shared": None, "own": None}
    even = gained({"a": Gain(0.0, 0.0)})
    assert even is not None and even.gained == 0


ARGUMENTS = [
    "--partition", "column:domain", "--label-column", "domain", "--rounds", "1", "--local-steps",
    "1", "--batch-size", "2", "--max-validation-examples", "2", "--precision", "fp32",
    "--max-source-tokens", "32", "--max-target-tokens", "8", "--deterministic", "--threads", "1",
]  # fmt: skip


@pytest.mark.parametrize("method", ["none", "pftt", "fedpipe"])
def test_the_command_tells_and_writes_gains(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", sentences(5, 48))
    out, work = tmp_path / "out.json", tmp_path / "work"
    arguments = ["--data", str(data), "--model", str(tiny), *ARGUMENTS, "--method", method]
    budget = ["--set", "method.memory_budget_mb=900"] if method == "fedpipe" else []
    assert main([*arguments, *budget, "--alone", "--json", str(out), "--workdir", str(work)]) == 0
    report = json.loads(out.read_text())
    rows, last = report["alone"]["devices"], report["rounds"][-1]["evaluations"]
    assert [row["device"] for row in rows] == sorted(last)
    for slot, row in enumerate(rows):
        mine = last[row["device"]]
        assert row["shared"] == {"rougeL": mine["rougeL"], "loss": mine["loss"]}
        assert row["gain"]["loss"] == pytest.approx(row["alone"]["loss"] - mine["loss"])
        assert (row["own"] is not None) == (method == "pftt")
        first = [sha256_file(global_file(folder, 0)) for folder in (work, work / f"alone/{slot}")]
        assert first[0] == first[1], "not the same first weights"
    assert report["alone"]["summary"]["shared"]["devices"] == 3
    output = capsys.readouterr().out
    assert "shared model over training alone: ROUGE-L" in output and "of 3 devices gained" in output
    assert ("own models over training alone" in output) == (method == "pftt")


def test_the_command_refuses_agglomerative(
    rows_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(rows_file), "--method", "agglomerative", "--alone"]
    assert main(arguments) == 2
    assert "--alone: agglomerative devices learn" in capsys.readouterr().err


def test_an_evaluation_becomes_a_comparison() -> None:
    from fedcore.simulate.baselines import compared

    def scored(rouge: float, loss: float, **more: float) -> Evaluation:
        return Evaluation(loss, 0.0, 0.0, rouge, 4, 40, 0.1, more)

    row = compared("pi", scored(20.0, 2.0, personal_rougeL=25.0, personal_loss=1.0), scored(21, 3))
    assert (row.shared, row.own, row.alone) == (Score(20.0, 2.0), Score(25.0, 1.0), Score(21, 3))

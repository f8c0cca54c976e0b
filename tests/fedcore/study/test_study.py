"""Studies: files, metrics, stored runs and reports."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from fedcore.errors import SpecError
from fedcore.study import markdown_report
from fedcore.study.__main__ import main
from fedcore.study.metrics import METRICS, MeasuredRun, Record
from fedcore.study.runs import RunStore, chosen, compared, count, select_runs, tries
from fedcore.study.study_data import EACH, data_file
from fedcore.study.study_file import read_study, study_of
from fedcore.study.summary import best, rows
from tests.compose import ROOT

STUDY: dict[str, Any] = {
    "title": "A study",
    "question": "Which one?",
    "data": "rows.jsonl",
    "seeds": [1, 2],
    "metrics": ["loss", "rougeL", "bytes_up"],
    "spec": {"rounds": 2},
    "split": [{"name": "alike"}, {"name": "by kind", "partition": "column:kind"}],
    "tuning": {"seeds": [7]},
    "method": [
        {"name": "FedAvg"},
        {
            "name": "FedAdam",
            "spec": {"strategy": {"name": "fedadam"}},
            "tune": {"strategy.server_learning_rate": [0.1, 0.01]},
        },
    ],
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(STUDY), **changes}


def round_(number: int, loss: float, rouges: tuple[float, ...] = (10.0, 30.0)) -> dict[str, Any]:
    devices: dict[str, Any] = {
        f"d{i}": {"loss": loss + i, "rougeL": value} for i, value in enumerate(rouges)
    }
    return {
        "number": number,
        "mean": {"loss": loss, "rougeL": sum(rouges) / len(rouges)},
        "devices": devices,
        "aggregation_error": None if number == 0 else 0.1 * number,
        "bytes_up": 500_000,
        "bytes_down": 250_000,
        "seconds": 2.0,
    }


SILENT = {**round_(1, 0.0), "mean": {}, "devices": {}}  # a round that did not evaluate


@pytest.fixture
def shelf(tmp_path: Path) -> RunStore:
    data = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": "t", "summary": "s", "kind": kind}) for kind in "aabbcc"]
    data.write_text("\n".join(lines) + "\n")
    return RunStore(study_of(STUDY), tmp_path / "runs", data)


def keep(shelf: RunStore, run: Any, loss: float, failure: str = "") -> None:
    rounds = [round_(0, 9.0), round_(1, loss)]
    shelf.put(run, Record(shelf.inputs(run), rounds, 3.0, failure, {}))


def test_study_file_reports_all_errors() -> None:
    wrong = changed(
        titel="x",
        seeds=[1, 1],
        metrics=["loss", "speed"],
        split=[{"name": "a", "partition": "iid", "device": 3}],
        method=[{"name": "m", "spec": {}, "colour": "red"}, {"spec": {}}],
        tuning={"seeds": ["x"], "rounds": 3},
    )
    with pytest.raises(SpecError) as error:
        study_of(wrong)
    messages = {fault.path: fault.message for fault in error.value.faults}
    assert "did you mean 'title'?" in messages["titel"]
    assert "did you mean 'devices'?" in messages["split[0].device"]
    assert {"method[0].colour", "method[1].name", "tuning.seeds", "tuning.rounds"} <= set(messages)


def test_inconsistent_study_reports_all_errors() -> None:
    wrong = changed(
        seeds=[1, 1],
        metrics=["loss", "speed", "rounds_to_target"],
        spec={"seed": 3, "rounds": 0},
        split=[{"name": "a", "partition": "dirichlet:0"}, {"name": "A"}],
        tuning={"seeds": [1]},
    )
    with pytest.raises(SpecError) as error:
        study_of(wrong)
    text = str(error.value)
    for part in (
        "split: 'a' occurs 2 times", "seeds: 1 occurs 2 times", "unknown metric 'speed'",
        "spec.seed: is set by the study", "tuning.seeds: must differ", "target_loss: give",
        "split[0].partition: the Dirichlet alpha", "method 'FedAvg': rounds:",
        "method 'FedAdam': rounds:",
    ):  # fmt: skip
        assert part in text, part


@pytest.mark.parametrize(
    ("data", "messages"),
    [("dialogues:clinic+moon", "no domain 'moon'; known: clinic,"), ("dialogues:law+law", "once")],
)
def test_unknown_dialogue_domain_is_rejected(data: str, messages: str) -> None:
    with pytest.raises(SpecError, match=messages):
        study_of(changed(data=data))


def test_data_file_generates_or_finds_examples(tmp_path: Path) -> None:
    generated = data_file("dialogues:clinic+law", tmp_path, tmp_path / "one")
    again = data_file("dialogues:clinic+law", tmp_path, tmp_path / "two")
    assert generated.read_bytes() == again.read_bytes()
    domains = [json.loads(line)["domain"] for line in generated.read_text("utf-8").splitlines()]
    assert domains == ["clinic"] * EACH + ["law"] * EACH
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert data_file("rows.jsonl", tmp_path, generated.parent) == tmp_path / "rows.jsonl"
    with pytest.raises(SpecError, match=r"there is no gone\.jsonl in the folder"):
        data_file("gone.jsonl", tmp_path, generated.parent)


def test_tuning_without_seeds_is_rejected() -> None:
    with pytest.raises(SpecError, match="give seeds for tuning"):
        study_of(changed(tuning={}))


def test_every_metric_has_a_value() -> None:
    rounds = [round_(0, 4.0), SILENT, round_(2, 3.0, (10.0, 30.0)), round_(3, 2.0, (20.0, 20.0))]
    rounds[-1]["devices"]["d1"]["more"] = {"personal_loss": 1.0, "personal_rougeL": 50.0}
    rounds[-1]["measured"] = {
        "d0": {"reward_before": 0.25, "reward_after": 0.75},
        "d1": {"reward_before": 0.75, "reward_after": 1.0},
    }
    plans = {
        "d0": {"matrices": 4, "rank": 8.0, "memory_mb": 500.0, "score": 1.0},
        "d1": {"matrices": 2, "rank": 4.0, "memory_mb": 480.0, "score": 0.5},
    }
    record = Record({}, rounds, 8.0, plans=plans)
    expected = {
        "loss": 2.0, "rougeL": 20.0, "worst": 20.0, "worst_loss": 3.0, "spread": 0.0,
        "spread_loss": 0.5, "jain": 1.0, "bytes_up": 2.0, "bytes_down": 1.0,
        "aggregation_error": pytest.approx(0.2), "rounds_to_target": 2.0, "seconds": 8.0,
        "used_loss": 1.5, "used_rougeL": 35.0, "worst_used_loss": 2.0,
        "reward_before": 0.5, "reward_after": 0.875, "reward_gain": 0.375,
        "plan_matrices": 3.0, "plan_rank": 6.0, "plan_memory": 490.0, "plan_score": 0.75,
    }  # fmt: skip
    for name, value in expected.items():
        assert METRICS[name].value(record, 3.5) == value, name
    assert set(expected) | {"rouge1", "rouge2"} == set(METRICS)
    assert METRICS["rounds_to_target"].value(record, 1.0) is None
    assert METRICS["loss"].value(Record({}, rounds, 8.0, "diverged"), 3.5) is None
    silent = Record({}, [round_(0, 4.0)], 8.0)
    assert all(METRICS[name].value(silent, 3.5) is None for name in ("reward_gain", "plan_rank"))
    assert METRICS["used_loss"].value(silent, 3.5) == 4.5
    assert METRICS["spread"].points(MeasuredRun(rounds)) == [(0, 10.0), (2, 10.0), (3, 0.0)]


def test_stored_run_is_valid_until_inputs_change(shelf: RunStore) -> None:
    run = tries(shelf.study)[0]
    assert shelf.get(run) is None
    keep(shelf, run, 5.0)
    stored = shelf.get(run)
    assert stored is not None and stored.rounds[1]["mean"]["loss"] == 5.0
    other = RunStore(study_of(changed(spec={"rounds": 3})), shelf.folder, shelf.data)
    assert other.get(tries(other.study)[0]) is None
    renamed = RunStore(study_of(changed(title="Other", seeds=[4, 5])), shelf.folder, shelf.data)
    assert renamed.get(tries(renamed.study)[0]) == stored
    shelf.data.write_text(shelf.data.read_text() * 2)
    assert RunStore(shelf.study, shelf.folder, shelf.data).get(run) is None


def test_new_default_option_keeps_stored_runs(shelf: RunStore) -> None:
    run = tries(shelf.study)[0]
    keep(shelf, run, 5.0)
    values = json.loads(shelf.path(run).read_text())
    del values["inputs"]["spec"]["strategy"]["fairness_q"]
    shelf.path(run).write_text(json.dumps(values))
    assert shelf.get(run) is not None
    values["inputs"]["spec"]["strategy"]["gone"] = 1
    shelf.path(run).write_text(json.dumps(values))
    assert shelf.get(run) is None


def test_truncated_run_file_is_ignored(shelf: RunStore) -> None:
    run = tries(shelf.study)[0]
    keep(shelf, run, 5.0)
    text = shelf.path(run).read_text()
    for length in (0, len(text) // 2, len(text) - 3):
        shelf.path(run).write_text(text[:length])
        assert shelf.get(run) is None


def test_tuning_selects_compared_settings(shelf: RunStore) -> None:
    study, tune = shelf.study, tries(shelf.study)
    adam, (alike, _) = study.methods[1], study.splits
    assert len(tune) == 4 and count(study) == 12
    assert {run.method.name for run in compared(shelf)} == {"FedAvg"}
    for run, loss in zip(tune, (5.0, 4.0), strict=False):
        keep(shelf, run, loss)
    assert chosen(shelf, adam, alike) == {"strategy.server_learning_rate": 0.01}
    ready = [run for run in compared(shelf) if run.method is adam]
    assert [(run.split.name, run.seed) for run in ready] == [("alike", 1), ("alike", 2)]
    assert ready[0].spec(study).strategy.server_learning_rate == 0.01
    keep(shelf, tune[1], 4.0, failure="the loss is nan")
    assert chosen(shelf, adam, alike) == {"strategy.server_learning_rate": 0.1}


def test_only_selects_runs_by_id(shelf: RunStore) -> None:
    runs = tries(shelf.study)
    assert [run.id for run in select_runs(runs, ["by-kind--tune-server_learning_rate=0.1-"])] == [
        "fedadam--by-kind--tune-server_learning_rate=0.1--seed7"
    ]
    assert select_runs(runs, []) == runs


@pytest.fixture
def full(shelf: RunStore) -> RunStore:
    """All runs: FedAdam's losses are 1 above and 2 below FedAvg's, its second one failed."""
    for run in tries(shelf.study):
        keep(shelf, run, 5.0)
    losses = {("FedAvg", 1): 4.0, ("FedAvg", 2): 6.0, ("FedAdam", 1): 3.0, ("FedAdam", 2): 4.0}
    for run in compared(shelf):
        failed = run.split.name == "by kind" and run.method.name == "FedAdam" and run.seed == 2
        keep(shelf, run, losses[run.method.name, run.seed], "the loss is nan" if failed else "")
    return shelf


def test_report_has_mean_deviation_difference(full: RunStore, tmp_path: Path) -> None:
    out = tmp_path / "report.md"
    markdown_report.write_report(full, out, "python -m fedcore.study x.toml", [])
    text = out.read_text()
    assert "| FedAvg | 5.0000 ± 1.4142 | 20.00 ± 0.00 | 1.00 ± 0.00 |" in text
    assert "| FedAdam (server_learning_rate 0.1) | **3.5000 ± 0.7071** |" in text
    assert "| FedAdam | -1.5000 ± 0.7071 | +0.00 ± 0.00 | +0.00 ± 0.00 |" in text
    assert "| FedAdam (server_learning_rate 0.1) | 3.0000 (1 of 2) |" in text
    assert "| FedAvg | **5.0000 ± 1.4142** |" in text, "the only one with both seeds"
    assert "| FedAdam | -1.0000 (1 of 2) |" in text
    assert "FedAdam on by kind, seed 2, after round 1: the loss is nan" in text
    assert "| alike | FedAdam | **strategy.server_learning_rate 0.1** | 5.0000 |" in text
    assert str(tmp_path) not in text and "missing" not in text


def test_values_csv_has_one_line_per_run(full: RunStore, tmp_path: Path) -> None:
    markdown_report.write_values(full, tmp_path / "values.csv")
    head, *lines = (tmp_path / "values.csv").read_text().splitlines()
    assert head == "split,method,settings,seed,loss,rougeL,bytes_up,failure"
    assert len(lines) == 8
    assert "alike,FedAdam,strategy.server_learning_rate 0.1,1,3,20,1," in lines
    assert "by kind,FedAdam,strategy.server_learning_rate 0.1,2,,,,the loss is nan" in lines


def test_report_marks_the_unique_best(full: RunStore) -> None:
    each = rows(full)["alike"]
    winner = best(each, "loss")
    assert winner is not None and winner.method.name == "FedAdam"
    assert best(each, "bytes_up") is None and best(each[:1], "loss") is None


def test_incomplete_mean_is_never_best(full: RunStore) -> None:
    """FedAdam's one loss is lower than FedAvg's mean of two, and its second training diverged."""
    whole, part = rows(full)["by kind"]
    assert list(part.values("loss").values()) == [3.0] and len(whole.values("loss")) == 2
    assert best([whole, part], "loss") is whole
    assert part.gaps_to(whole, "loss") == [-1.0]


def test_a_report_lists_plans(shelf: RunStore, tmp_path: Path) -> None:
    run = compared(shelf)[0]
    plans = {"pi": {"why": "a base in int8 (480 MB)"}}
    shelf.put(run, Record(shelf.inputs(run), [round_(0, 9.0)], 3.0, plans=plans))
    markdown_report.write_report(shelf, tmp_path / "report.md", "one", [])
    assert "- FedAvg, pi: a base in int8 (480 MB)" in (tmp_path / "report.md").read_text()


def test_report_keeps_interpretation(full: RunStore, tmp_path: Path) -> None:
    out = tmp_path / "report.md"
    markdown_report.write_report(full, out, "one", [])
    assert markdown_report.interpretation(out) == markdown_report.EMPTY
    words = "FedAdam won.\n\nBut | not \\1 by much."
    out.write_text(out.read_text().replace(markdown_report.EMPTY, words))
    markdown_report.write_report(full, out, "two", [])
    assert markdown_report.interpretation(out) == words and "two" in out.read_text()


def test_report_lists_missing_runs(shelf: RunStore, tmp_path: Path) -> None:
    markdown_report.write_report(shelf, tmp_path / "report.md", "one", [])
    text = (tmp_path / "report.md").read_text()
    assert "**8 of 8 runs are missing.**" in text and "not yet" in text


def test_plots_cover_existing_runs(full: RunStore, tmp_path: Path) -> None:
    from fedcore.study.plots import draw_study

    plots = draw_study(full, tmp_path / "plots")
    assert [path.name for path in plots] == [
        "curves-alike.png", "curves-by-kind.png", "bars.png", "split-alike.png",
        "split-by-kind.png",
    ]  # fmt: skip
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in plots)
    nothing = RunStore(full.study, tmp_path / "empty", full.data)
    assert [path.name for path in draw_study(nothing, tmp_path)] == [
        path.name for path in plots[3:]
    ]


def test_command_prints_every_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.toml"
    file.write_text('title = "x"\ndata = "rows.jsonl"\nseeds = [1]\nmethods = []\nspeed = 1\n')
    assert main([str(file), "--out", str(tmp_path / "out")]) == 2
    messages = capsys.readouterr().err
    assert all(f"study: {key}: " in messages for key in ("methods", "speed", "method"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "studies").glob("*.toml")), ids=str)
def test_shipped_studies_are_valid(path: Path) -> None:
    study = read_study(path)
    assert len(study.seeds) >= 3 and study.question
    assert "/" not in study.data

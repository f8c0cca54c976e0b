"""The page on studies tells what there is: files, options, metrics, splits."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest

from fedcore.partition.__main__ import parser as partition
from fedcore.partition.kinds import KINDS
from fedcore.study.__main__ import parser as study
from fedcore.study.markdown_report import interpretation
from fedcore.study.metrics import METRICS
from fedcore.study.study_file import read_study, study_of
from tests.compose import ROOT

PAGE = ROOT / "docs" / "studies" / "README.md"
TEXT = PAGE.read_text()
STUDIES = sorted(PAGE.parent.glob("*.toml"))


def test_every_study_metric_and_split_is_documented() -> None:
    files = [path.name for path in (ROOT / "docs" / "studies").glob("*.toml")]
    assert [name for name in files if f"]({name})" not in TEXT] == []
    assert [name for name in METRICS if f"`{name}`" not in TEXT] == []
    splits = {name: f"`{name}:{kind.argument}`".replace(":`", "`") for name, kind in KINDS.items()}
    assert [name for name, shown in splits.items() if shown not in TEXT] == []


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_stands_beside_its_results(path: Path) -> None:
    """Every run has its line of values, and the report has pictures and an interpretation."""
    study, results = read_study(path), path.with_suffix("")
    report = (results / "report.md").read_text()
    assert "runs are missing" not in report and "not yet" not in report
    assert len(interpretation(results / "report.md").split()) > 30
    lines = list(csv.DictReader((results / "values.csv").open()))
    runs = {(row["split"], row["method"], int(row["seed"])) for row in lines}
    assert runs == {
        (split.name, method.name, seed)
        for split in study.splits
        for method in study.methods
        for seed in study.seeds
    }
    assert all(name in lines[0] for name in study.metrics)
    pictures = re.findall(r"\]\((plots/.*?)\)", report)
    assert pictures and all((results / name).stat().st_size < 60_000 for name in pictures)
    assert f"]({path.stem}/report.md)" in TEXT


def test_documented_options_are_the_real_ones() -> None:
    options = {text for action in study()._actions for text in action.option_strings}
    documented = set(re.findall(r"^\| `(--[a-z-]+)` \|", TEXT, re.MULTILINE))
    assert documented == options - {"-h", "--help"}


def test_the_commands_shown_can_be_read() -> None:
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")
    parsers = {"fedcore.study": study(), "fedcore.partition": partition()}
    seen = set()
    for line in blocks.splitlines():
        words = shlex.split(line.removesuffix("&"))
        if words[:2] == ["python", "-m"]:
            parsers[words[2]].parse_args(words[3:])
            seen.add(words[2])
    assert seen == set(parsers)


def test_the_study_shown_is_one() -> None:
    import tomllib

    shown = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert shown is not None
    made = study_of(tomllib.loads(shown[1]))
    assert len(made.methods) == 2 and made.splits[0].devices == 6


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^):#]+)\)", TEXT):
        assert (PAGE.parent / Path(target)).exists(), target

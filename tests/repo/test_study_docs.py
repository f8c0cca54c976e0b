"""The page on studies tells what there is: files, options, metrics, splits."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from fedcore.partition import KINDS
from fedcore.partition.__main__ import parser as partition
from fedcore.study.__main__ import parser as study
from fedcore.study.metrics import METRICS
from fedcore.study.reading import study_of
from tests.compose import ROOT

PAGE = ROOT / "docs" / "studies" / "README.md"
TEXT = PAGE.read_text()


def test_every_study_metric_and_split_is_told() -> None:
    files = [path.name for path in (ROOT / "docs" / "studies").glob("*.toml")]
    assert [name for name in files if f"]({name})" not in TEXT] == []
    assert [name for name in METRICS if f"`{name}`" not in TEXT] == []
    splits = {name: f"`{name}:{kind.argument}`".replace(":`", "`") for name, kind in KINDS.items()}
    assert [name for name, shown in splits.items() if shown not in TEXT] == []


def test_every_option_is_told_and_every_told_one_is_there() -> None:
    options = {text for action in study()._actions for text in action.option_strings}
    told = set(re.findall(r"^\| `(--[a-z-]+)` \|", TEXT, re.MULTILINE))
    assert told == options - {"-h", "--help"}


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

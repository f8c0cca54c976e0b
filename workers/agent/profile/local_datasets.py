"""The datasets a person gave to this device: where they are, and what the server is told of them.

Figures and names leave the device, never text. They are opened in a process of their own, since
the readers load far more than the agent's parent should hold.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedcore.catalogue import CATALOGUE
from workers.agent.agent_errors import AgentError
from workers.agent.state.files import read_json, write_json

FILE = "datasets.json"
ROOT = Path(__file__).resolve().parents[3]
DESCRIBE_S = 900  # a hub dataset is downloaded the first time
SHAPE = "NAME=PATH[:text_column,summary_column[,domain]]"
NAME = re.compile(r"[\w.-]{1,100}")
FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalDataset:
    """One dataset. ``source`` is an absolute path, a short name of the catalogue or a hub name."""

    name: str
    source: str
    text_column: str = ""
    summary_column: str = ""
    domain: str = ""

    @property
    def is_file(self) -> bool:
        return self.source.startswith("/")

    @property
    def stamp(self) -> list[Any]:
        """Changes when the description may have changed."""
        key: list[Any] = [self.source, self.text_column, self.summary_column, self.domain]
        if self.is_file and Path(self.source).exists():
            stat = Path(self.source).stat()
            key += [stat.st_size, stat.st_mtime_ns]
        return key


def parse(text: str) -> LocalDataset:
    """Read NAME=PATH[:text,summary[,domain]]; raises AgentError saying what to write instead."""
    name, equals, rest = text.partition("=")
    if not equals or not rest or not NAME.fullmatch(name):
        raise AgentError(
            f"--dataset {text!r}: write {SHAPE}; the name has letters, digits, '.', '_' and '-'"
        )
    where, columns = _split(rest)
    text_column, summary_column, domain = (*columns, "", "", "")[:3]
    if where in CATALOGUE:
        if CATALOGUE[where].hub_id is None:
            raise AgentError(
                f"--dataset {text!r}: {where} is on no hub; get it ({CATALOGUE[where].licence}) "
                f"and give its file, such as {name}={where}.jsonl:"
                f"{CATALOGUE[where].text_column},{CATALOGUE[where].summary_column}"
            )
        return LocalDataset(name, where, text_column, summary_column, domain)
    path = Path(where).expanduser()
    if path.suffix.lower() in FILES or path.exists() or where.startswith((".", "/", "~")):
        return LocalDataset(name, _checked(path, text), text_column, summary_column, domain)
    if "/" not in where:
        near = difflib.get_close_matches(where, list(CATALOGUE), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"short names: {', '.join(CATALOGUE)}"
        raise AgentError(
            f"--dataset {text!r}: {where!r} is no file, no short name and no hub name such as "
            f"FiscalNote/billsum; {hint}"
        )
    return LocalDataset(name, where, text_column, summary_column, domain)


def _split(rest: str) -> tuple[str, tuple[str, ...]]:
    """(where, columns): what follows the last colon are columns, unless all of it is a file."""
    where, colon, tail = rest.rpartition(":")
    if not colon or Path(rest).expanduser().exists():
        return rest, ()
    columns = tuple(part.strip() for part in tail.split(","))
    if len(columns) not in (2, 3) or not all(columns):
        raise AgentError(
            f"--dataset: {tail!r} must be text_column,summary_column[,domain]; write {SHAPE}"
        )
    return where, columns


def _checked(path: Path, text: str) -> str:
    if not path.is_file():
        raise AgentError(f"--dataset {text!r}: there is no file {path}")
    if path.suffix.lower() not in FILES:
        raise AgentError(f"--dataset {text!r}: give a file that ends in {', '.join(FILES)}")
    return str(path.resolve())


def parse_all(texts: Sequence[str]) -> list[LocalDataset]:
    """Read several; all faults are reported together."""
    held, faults = [], []
    for text in texts:
        try:
            held.append(parse(text))
        except AgentError as fault:
            faults.append(str(fault))
    names = [item.name for item in held]
    faults += [
        f"--dataset: {name!r} is given twice" for name in set(names) if names.count(name) > 1
    ]
    if faults:
        raise AgentError("\n".join(faults))
    return held


def load(state_dir: Path) -> list[LocalDataset]:
    return [LocalDataset(**item["held"]) for item in read_json(state_dir / FILE) or []]


def describe_all(
    state_dir: Path, held: Sequence[LocalDataset], cache_dir: Path
) -> list[dict[str, Any]]:
    """What the server is told of each; raises AgentError with the faults of all. Remembers it."""
    known = _remembered(state_dir)
    new = [item for item in held if known.get(item.name, {}).get("stamp") != item.stamp]
    answers = dict(zip([item.name for item in new], _inspect(new, cache_dir), strict=True))
    faults = [
        f"dataset {name}: {said['fault']}" for name, said in answers.items() if "fault" in said
    ]
    if faults:
        raise AgentError("\n".join(faults))
    records = [
        {
            "held": asdict(item),
            "stamp": item.stamp,
            "told": answers.get(item.name) or known[item.name]["told"],
        }
        for item in held
    ]
    write_json(state_dir / FILE, records)
    return [dict(record["told"]) for record in records]


def describe_again(state_dir: Path, cache_dir: Path) -> list[dict[str, Any]]:
    """At the start of the agent: files that changed are opened again, files that went are left out.

    A dataset that cannot be opened now is left out with a warning; the others still serve.
    """
    told = []
    for record in read_json(state_dir / FILE) or []:
        item = LocalDataset(**record["held"])
        if item.is_file and not Path(item.source).exists():
            log.warning("dataset %s is left out: there is no file %s", item.name, item.source)
            continue
        if record["stamp"] == item.stamp:
            told.append(dict(record["told"]))
            continue
        answer = _inspect([item], cache_dir)[0]
        if "fault" in answer:
            log.warning("dataset %s is left out: %s", item.name, answer["fault"])
        else:
            told.append(answer)
    return told


def _remembered(state_dir: Path) -> dict[str, dict[str, Any]]:
    return {item["held"]["name"]: item for item in read_json(state_dir / FILE) or []}


def _inspect(held: Sequence[LocalDataset], cache_dir: Path) -> list[dict[str, Any]]:
    if not held:
        return []
    asked = {"cache_dir": str(cache_dir), "datasets": [asdict(item) for item in held]}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "workers.agent.profile.inspect_data"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=DESCRIBE_S,
        )
    except subprocess.TimeoutExpired as error:
        raise AgentError(f"the datasets could not be opened within {DESCRIBE_S} s") from error
    if done.returncode:
        raise AgentError(f"the datasets could not be opened: {done.stderr.strip()[-500:]}")
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers

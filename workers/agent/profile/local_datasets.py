"""The datasets that were added to this device, and their descriptions for the server.

Figures and names leave the device, never text. Datasets are opened in a separate process, because
the readers load far more than the agent's parent process should hold.
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
# Keys of a record in datasets.json; agents of earlier versions wrote them too.
DATASET, STAMP, DESCRIPTION = "held", "stamp", "told"

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
    """Parse NAME=PATH[:text,summary[,domain]]; raises AgentError with what to write instead."""
    name, equals, rest = text.partition("=")
    if not equals or not rest or not NAME.fullmatch(name):
        raise AgentError(
            f"--dataset {text!r}: write {SHAPE}; the name has letters, digits, '.', '_' and '-'"
        )
    source, columns = _split_columns(rest)
    text_column, summary_column, domain = (*columns, "", "", "")[:3]
    if source in CATALOGUE:
        entry = CATALOGUE[source]
        if entry.hub_id is None:
            raise AgentError(
                f"--dataset {text!r}: {source} is not on the Hub; download it ({entry.licence}) "
                f"and give its file, such as {name}={source}.jsonl:"
                f"{entry.text_column},{entry.summary_column}"
            )
        return LocalDataset(name, source, text_column, summary_column, domain)
    path = Path(source).expanduser()
    if path.suffix.lower() in FILES or path.exists() or source.startswith((".", "/", "~")):
        if not path.is_file():
            raise AgentError(f"--dataset {text!r}: there is no file {path}")
        if path.suffix.lower() not in FILES:
            raise AgentError(f"--dataset {text!r}: give a file that ends in {', '.join(FILES)}")
        return LocalDataset(name, str(path.resolve()), text_column, summary_column, domain)
    if "/" not in source:
        near = difflib.get_close_matches(source, list(CATALOGUE), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"short names: {', '.join(CATALOGUE)}"
        raise AgentError(
            f"--dataset {text!r}: {source!r} is neither a file, nor a short name, nor a Hub name "
            f"such as FiscalNote/billsum; {hint}"
        )
    return LocalDataset(name, source, text_column, summary_column, domain)


def _split_columns(rest: str) -> tuple[str, tuple[str, ...]]:
    """(source, columns): columns follow the last colon, unless the whole string is a file."""
    source, colon, tail = rest.rpartition(":")
    if not colon or Path(rest).expanduser().exists():
        return rest, ()
    columns = tuple(part.strip() for part in tail.split(","))
    if len(columns) not in (2, 3) or not all(columns):
        raise AgentError(
            f"--dataset: {tail!r} must be text_column,summary_column[,domain]; write {SHAPE}"
        )
    return source, columns


def parse_all(texts: Sequence[str]) -> list[LocalDataset]:
    """Parse several; all errors are reported together."""
    datasets, errors = [], []
    for text in texts:
        try:
            datasets.append(parse(text))
        except AgentError as error:
            errors.append(str(error))
    names = [dataset.name for dataset in datasets]
    errors += [
        f"--dataset: {name!r} is given twice" for name in set(names) if names.count(name) > 1
    ]
    if errors:
        raise AgentError("\n".join(errors))
    return datasets


def load(state_dir: Path) -> list[LocalDataset]:
    return [LocalDataset(**record[DATASET]) for record in read_json(state_dir / FILE) or []]


def describe_all(
    state_dir: Path, datasets: Sequence[LocalDataset], cache_dir: Path
) -> list[dict[str, Any]]:
    """Store the datasets; returns their descriptions. Raises AgentError with all errors."""
    known = {record[DATASET]["name"]: record for record in read_json(state_dir / FILE) or []}
    new = [item for item in datasets if known.get(item.name, {}).get(STAMP) != item.stamp]
    results = dict(zip([item.name for item in new], _inspect(new, cache_dir), strict=True))
    errors = [
        f"dataset {name}: {result['fault']}"
        for name, result in results.items()
        if "fault" in result
    ]
    if errors:
        raise AgentError("\n".join(errors))
    records = [
        {
            DATASET: asdict(item),
            STAMP: item.stamp,
            DESCRIPTION: results.get(item.name) or known[item.name][DESCRIPTION],
        }
        for item in datasets
    ]
    write_json(state_dir / FILE, records)
    return [dict(record[DESCRIPTION]) for record in records]


def describe_again(state_dir: Path, cache_dir: Path) -> list[dict[str, Any]]:
    """Descriptions at the start of the agent; files that changed are opened again.

    A dataset that is missing or cannot be opened is skipped with a warning; the others still serve.
    """
    descriptions = []
    for record in read_json(state_dir / FILE) or []:
        item = LocalDataset(**record[DATASET])
        if item.is_file and not Path(item.source).exists():
            log.warning("skipping dataset %s: there is no file %s", item.name, item.source)
            continue
        if record[STAMP] == item.stamp:
            descriptions.append(dict(record[DESCRIPTION]))
            continue
        result = _inspect([item], cache_dir)[0]
        if "fault" in result:
            log.warning("skipping dataset %s: %s", item.name, result["fault"])
        else:
            descriptions.append(result)
    return descriptions


def _inspect(datasets: Sequence[LocalDataset], cache_dir: Path) -> list[dict[str, Any]]:
    if not datasets:
        return []
    request = {"cache_dir": str(cache_dir), "datasets": [asdict(item) for item in datasets]}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "workers.agent.profile.inspect_data"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=DESCRIBE_S,
        )
    except subprocess.TimeoutExpired as error:
        raise AgentError(f"opening the datasets took longer than {DESCRIBE_S} s") from error
    if done.returncode:
        raise AgentError(f"cannot open the datasets: {done.stderr.strip()[-500:]}")
    results: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return results

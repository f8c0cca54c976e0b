"""One file dealt out to simulated devices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedcore.partition.split import SplitConfig, split
from fedcore.train.datasets import Source, column_of, guess_columns, open_rows


def deal(whole: Source, wanted: SplitConfig, workdir: Path) -> dict[str, Source]:
    """Write each device's share of the file as JSONL into ``workdir`` and name the devices."""
    rows = open_rows(whole, workdir / "cache")
    columns = guess_columns(whole, rows.column_names)
    made = split(wanted, len(rows), lambda name: column_of(whole, rows, name))
    return {
        name: _write_share(workdir / "data" / f"{number}.jsonl", rows, part, columns)
        for number, (name, part) in enumerate(zip(made.names, made.parts, strict=True))
    }


def _write_share(path: Path, rows: Any, part: Sequence[int], columns: tuple[str, str]) -> Source:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in rows.select(part).select_columns(list(columns)):
            file.write(json.dumps(row) + "\n")
    return Source(str(path), *columns)

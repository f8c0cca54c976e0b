"""Partition one file over simulated devices."""

from __future__ import annotations

import json
from pathlib import Path

from fedcore.partition.split import SplitConfig, split
from fedcore.train.datasets import Source, column_of, guess_columns, open_rows


def deal(source: Source, config: SplitConfig, workdir: Path) -> dict[str, Source]:
    """Write each device's share of the file as JSONL into ``workdir``; sources by device name."""
    rows = open_rows(source, workdir / "cache")
    columns = guess_columns(source, rows.column_names)
    shares = split(config, len(rows), lambda name: column_of(source, rows, name))
    folder = workdir / "data"
    folder.mkdir(parents=True, exist_ok=True)
    devices = {}
    for number, (name, part) in enumerate(zip(shares.names, shares.parts, strict=True)):
        path = folder / f"{number}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for row in rows.select(part).select_columns(list(columns)):
                file.write(json.dumps(row) + "\n")
        devices[name] = Source(str(path), *columns)
    return devices

"""Where the bridge's text comes from: the packaged dialogues, or a dataset that all nodes hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path

from fedcore.dialogues.examples import DOMAINS, HELD_OUT_DOMAINS, generate
from fedcore.errors import DataError
from fedcore.spec.options.distill import PACKAGED_BRIDGE, DistillSpec
from fedcore.train.datasets import Source, guess_columns, open_rows

SEED = 771_177_717  # of the packaged bridge; no demo, test or study draws its devices' text by it
SEEN = tuple(name for name in DOMAINS if name not in HELD_OUT_DOMAINS)


def bridge_source(options: DistillSpec, folder: Path) -> Source:
    """The bridge's first samples as a file in ``folder``.

    ``dialogues`` are made here, by turns from every domain that nano has seen, or from those named
    (``dialogues:clinic+law``): the same text on every node. Raises DataError for what has none.
    """
    name, _, domains = options.bridge.partition(":")
    if name == PACKAGED_BRIDGE:
        rows = _dialogues(domains.split("+") if domains else SEEN, options.samples)
    else:
        rows = _first(Source(options.bridge), options.samples, folder)
    path = folder / "bridge.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"text": text, "summary": summary}) + "\n" for text, summary in rows)
    _write("".join(lines).encode(), path)
    return Source(str(path), "text", "summary")


def _write(content: bytes, path: Path) -> None:
    """In one step; a file that is right stays as it is, and so does what was made of it."""
    if path.is_file() and path.read_bytes() == content:
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def _dialogues(domains: Iterable[str], count: int) -> Iterable[tuple[str, str]]:
    domains = list(domains)
    if unknown := [name for name in domains if name not in DOMAINS]:
        raise DataError(
            f"the packaged bridge has no domain {', '.join(unknown)}; known: {', '.join(DOMAINS)}"
        )
    each = -(-count // len(domains))
    drawn = zip(*(generate(name, each, SEED) for name in domains), strict=True)
    return [(one.dialogue, one.summary) for one in islice(chain.from_iterable(drawn), count)]


def _first(source: Source, count: int, folder: Path) -> Iterable[tuple[str, str]]:
    try:
        rows = open_rows(source, folder / "cache")
        text, summary = guess_columns(source, rows.column_names)
    except DataError as error:
        raise DataError(f"the bridge samples cannot be used: {error}") from error
    chosen = rows.select(range(min(count, len(rows))))
    return [(str(row[text] or ""), str(row[summary] or "")) for row in chosen]

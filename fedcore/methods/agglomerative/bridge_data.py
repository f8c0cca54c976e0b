"""The bridge's text: packaged dialogues, or a dataset that every node can read."""

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

SEED = 771_177_717  # of the packaged bridge; no demo, test or study uses it for its devices
SEEN = tuple(name for name in DOMAINS if name not in HELD_OUT_DOMAINS)


def bridge_source(options: DistillSpec, folder: Path) -> Source:
    """Write the first samples of the bridge as a file in ``folder``.

    ``dialogues`` takes turns over all domains that nano was trained on, ``dialogues:clinic+law``
    over the named ones: the same text on every node. Raises DataError if there are no samples.
    """
    name, _, domains = options.bridge.partition(":")
    if name == PACKAGED_BRIDGE:
        rows = _packaged_rows(domains.split("+") if domains else SEEN, options.samples)
    else:
        rows = _dataset_rows(Source(options.bridge), options.samples, folder)
    lines = (json.dumps({"text": text, "summary": summary}) + "\n" for text, summary in rows)
    content = "".join(lines).encode()
    path = folder / "bridge.jsonl"
    # Rewriting an equal file would discard what was tokenized from it.
    if not (path.is_file() and path.read_bytes() == content):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(path)
    return Source(str(path), "text", "summary")


def _packaged_rows(domains: Iterable[str], count: int) -> Iterable[tuple[str, str]]:
    domains = list(domains)
    if unknown := [name for name in domains if name not in DOMAINS]:
        raise DataError(
            f"the packaged bridge has no domain {', '.join(unknown)}; known: {', '.join(DOMAINS)}"
        )
    each = -(-count // len(domains))
    turns = zip(*(generate(name, each, SEED) for name in domains), strict=True)
    return [(one.dialogue, one.summary) for one in islice(chain.from_iterable(turns), count)]


def _dataset_rows(source: Source, count: int, folder: Path) -> Iterable[tuple[str, str]]:
    try:
        rows = open_rows(source, folder / "cache")
        text, summary = guess_columns(source, rows.column_names)
    except DataError as error:
        raise DataError(f"the bridge samples cannot be used: {error}") from error
    chosen = rows.select(range(min(count, len(rows))))
    return [(str(row[text] or ""), str(row[summary] or "")) for row in chosen]

"""A device's examples: read, split into training and validation, and tokenized once, on its disk.

Nothing here depends on other devices. The split is a function of the job's seed and each example's
text, so equal examples fall on the same side in whatever order they come.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import DataError
from fedcore.spec.job import DataSpec
from fedcore.train.datasets import Source, content_key, guess_columns, open_rows

LAYOUT = "1"  # of the files in the cache; part of their key
TOKENIZE_ROWS = 512


@dataclass(frozen=True)
class TokenizedExample:
    """Token ids of one example: source (with prefix and EOS) and target (with EOS)."""

    source: NDArray[np.int32]
    target: NDArray[np.int32]

    @property
    def lengths(self) -> tuple[int, int]:
        return len(self.source), len(self.target)


class TokenizedDataset(Sequence[TokenizedExample]):
    """Tokenized examples in memory-mapped files; ``rows`` picks and orders some of them."""

    def __init__(self, folder: Path, rows: Sequence[int] | None = None) -> None:
        self.folder = folder
        self._ends = np.load(folder / "ends.npy")
        ids = folder / "ids.bin"
        self._ids: NDArray[np.int32] = np.memmap(ids, dtype=np.int32, mode="r")
        self._rows = np.arange(len(self._ends)) if rows is None else np.asarray(rows, dtype=int)

    def __len__(self) -> int:
        return len(self._rows)

    def some(self, places: Sequence[int]) -> TokenizedDataset:
        """The examples at these places, in their order."""
        return TokenizedDataset(self.folder, [int(self._rows[place]) for place in places])

    @cached_property
    def lengths(self) -> list[tuple[int, int]]:
        """Source and target tokens of every example."""
        starts = np.concatenate(([0], self._ends[:-1, 1]))
        source = self._ends[:, 0] - starts
        target = self._ends[:, 1] - self._ends[:, 0]
        both = np.stack((source, target), 1)[self._rows]
        return [(int(s), int(t)) for s, t in both]

    def __getitem__(self, index: Any) -> Any:
        row = int(self._rows[index])
        start = int(self._ends[row - 1, 1]) if row else 0
        middle, end = (int(value) for value in self._ends[row])
        return TokenizedExample(self._ids[start:middle], self._ids[middle:end])


@dataclass(frozen=True)
class Prepared:
    """A device's data in a job. ``references`` are the validation summaries; they never leave it.

    ``examples`` is the device's weight in the fold: the number of its training examples.
    """

    train: TokenizedDataset
    validation: TokenizedDataset
    references: tuple[str, ...]
    skipped: int

    @property
    def examples(self) -> int:
        return len(self.train)


@dataclass(frozen=True)
class _Cached:
    folder: Path
    digests: tuple[str, ...]
    skipped: int


def prepare(
    source: Source, data: DataSpec, seed: int, tokenizer: Any, cache_dir: Path | str
) -> Prepared:
    """Read, split and tokenize; the tokens are cached by content, columns and lengths.

    Raises DataError for a missing file, unknown columns, no or too few examples.
    """
    cached = _tokenized(source, data, tokenizer, Path(cache_dir))
    count = len(cached.digests)
    if count < data.min_examples:
        raise DataError(
            f"{source.label} holds {count} usable examples where the job asks for "
            f"{data.min_examples}; add examples or lower data.min_examples"
        )
    train, validation = split_rows(cached.digests, data.validation_fraction, seed)
    validation = validation[: data.max_validation_examples]
    summaries = (cached.folder / "summaries.jsonl").read_text("utf-8").splitlines()
    references = tuple(json.loads(summaries[row]) for row in validation)
    folder = cached.folder
    return Prepared(
        TokenizedDataset(folder, train),
        TokenizedDataset(folder, validation),
        references,
        cached.skipped,
    )


def split_rows(digests: Sequence[str], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Rows for training (in file order) and for validation (in the order of their ranks).

    Each side gets at least one row. A row's rank is the hash of seed and content.
    """
    size = min(len(digests) - 1, max(1, math.floor(fraction * len(digests) + 0.5)))
    ranks = [hashlib.sha256(f"{seed}\x1f{digest}".encode()).digest() for digest in digests]
    validation = sorted(range(len(digests)), key=lambda row: (ranks[row], row))[:size]
    held_out = set(validation)
    return [row for row in range(len(digests)) if row not in held_out], validation


def _tokenized(source: Source, data: DataSpec, tokenizer: Any, cache_dir: Path) -> _Cached:
    key = [
        LAYOUT,
        content_key(source, cache_dir),
        source.text_column,
        source.summary_column,
        source.where,
        data.prefix,
        data.max_source_tokens,
        data.max_target_tokens,
        tokenizer_key(tokenizer),
    ]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    folder = cache_dir / "tokens" / name
    if not (folder / "index.json").exists():
        # Write a folder of tokens under a temporary name, then rename it in one step.
        part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            _write_tokens(_text_pairs(source, folder.parents[1]), data, tokenizer, part)
            with suppress(OSError):  # another process was first: its folder holds the same
                part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    index = json.loads((folder / "index.json").read_text("utf-8"))
    if not index["digests"]:
        raise DataError(f"{source.label} holds no example with both a text and a summary")
    return _Cached(folder, tuple(index["digests"]), index["skipped"])


def tokenizer_key(tokenizer: Any) -> str:
    """A hash of what a tokenizer does: its serialisation, or its vocabulary.

    Truncation and padding are left out: earlier calls may have set them.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend:
        parts = {**json.loads(backend.to_str()), "truncation": None, "padding": None}
        text = json.dumps(parts, sort_keys=True)
    else:
        text = json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _text_pairs(source: Source, cache_dir: Path) -> Iterator[tuple[str, str]]:
    """(text, summary) of each row; ('', '') for a row that lacks either."""
    rows = open_rows(source, cache_dir)
    text, summary = guess_columns(source, rows.column_names)
    for row in rows.select_columns([text, summary]):
        pair = str(row[text] or "").strip(), str(row[summary] or "").strip()
        yield pair if all(pair) else ("", "")


def _write_tokens(
    pairs: Iterator[tuple[str, str]], data: DataSpec, tokenizer: Any, folder: Path
) -> None:
    ends: list[tuple[int, int]] = []
    digests: list[str] = []
    skipped = position = 0
    with (
        (folder / "ids.bin").open("wb") as ids,
        (folder / "summaries.jsonl").open("w", encoding="utf-8") as summaries,
    ):
        while batch := list(islice(pairs, TOKENIZE_ROWS)):
            usable = [pair for pair in batch if pair[0]]
            skipped += len(batch) - len(usable)
            if not usable:
                continue
            texts = [data.prefix + text for text, _ in usable]
            sources = tokenizer(texts, max_length=data.max_source_tokens, truncation=True).input_ids
            targets = tokenizer(
                text_target=[summary for _, summary in usable],
                max_length=data.max_target_tokens,
                truncation=True,
            ).input_ids
            for pair, source, target in zip(usable, sources, targets, strict=True):
                ids.write(np.asarray(source + target, dtype=np.int32).tobytes())
                ends.append((position + len(source), position + len(source) + len(target)))
                position = ends[-1][1]
                digests.append(hashlib.sha256("\x1f".join(pair).encode()).hexdigest()[:32])
                summaries.write(json.dumps(pair[1]) + "\n")
        if not position:
            ids.write(b"\0\0\0\0")  # an empty file cannot be mapped
    np.save(folder / "ends.npy", np.asarray(ends, dtype=np.int64).reshape(-1, 2))
    index = {"digests": digests, "skipped": skipped}
    (folder / "index.json").write_text(json.dumps(index), "utf-8")


def pad(rows: Sequence[NDArray[np.int32]], fill: int) -> NDArray[np.int64]:
    """Stack rows to (rows, longest) by filling at the right."""
    width = max(len(row) for row in rows)
    out = np.full((len(rows), width), fill, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out

"""Datasets of a device: a JSONL, CSV or Parquet file, a name of the catalogue or of the hub."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcore.catalogue import CATALOGUE, CatalogueEntry
from fedcore.errors import DataError
from fedcore.formats.frame_header import sha256_file

READERS = {
    ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet",
}  # fmt: skip
USUAL_COLUMNS = (("text", "summary"), ("dialogue", "summary"), ("document", "summary"))


@dataclass(frozen=True)
class Source:
    """One dataset of a device.

    ``path_or_name``: a file, a short name of the catalogue or a hub name. Empty columns come from
    the catalogue, or are guessed from the usual pairs. ``where`` (column, value) selects the rows
    whose column has that value.
    """

    path_or_name: str
    text_column: str = ""
    summary_column: str = ""
    domain: str = ""
    where: tuple[str, str] | None = None

    @property
    def label(self) -> str:
        """Its name in messages: never a whole path."""
        return Path(self.path_or_name).name if self.is_file else self.path_or_name

    @property
    def is_file(self) -> bool:
        return Path(self.path_or_name).suffix.lower() in READERS

    @property
    def path(self) -> Path:
        return Path(self.path_or_name).expanduser()

    @property
    def entry(self) -> CatalogueEntry | None:
        """Its entry of the catalogue, if its name is a short name."""
        return CATALOGUE.get(self.path_or_name)


@dataclass(frozen=True)
class DatasetInfo:
    """What enrolment sends the server about a dataset: sizes and names, never text."""

    examples: int
    columns: tuple[str, ...]
    bytes: int
    text_column: str
    summary_column: str
    domain: str


def describe(source: Source, cache_dir: Path | str | None = None) -> DatasetInfo:
    """Open a dataset far enough to describe it. Raises DataError as ``prepare`` does."""
    rows = open_rows(source, Path(cache_dir) if cache_dir else None)
    text, summary = guess_columns(source, rows.column_names)
    entry = source.entry
    domain = source.domain or (entry.domain if entry else "")
    size = source.path.stat().st_size if source.is_file else int(rows.info.dataset_size or 0)
    return DatasetInfo(len(rows), tuple(rows.column_names), size, text, summary, domain)


def guess_columns(source: Source, columns: Sequence[str]) -> tuple[str, str]:
    """The text and summary columns: as given, as the catalogue says, or the usual pair."""
    text, summary = source.text_column, source.summary_column
    if not (text and summary):
        entry = source.entry
        pairs = [(e.text_column, e.summary_column) for e in CATALOGUE.values()]
        pairs = [(entry.text_column, entry.summary_column)] if entry else [*USUAL_COLUMNS, *pairs]
        guessed = next((pair for pair in pairs if set(pair) <= set(columns)), ("", ""))
        text, summary = text or guessed[0], summary or guessed[1]
    for role, column in (("text", text), ("summary", summary)):
        if column not in columns:
            lack = f"no column {column!r}" if column else f"no column known to hold the {role}"
            raise DataError(
                f"{source.label} has {lack}; its columns are {', '.join(columns)}: name the "
                f"{role} column"
            )
    return text, summary


def open_rows(source: Source, cache_dir: Path | None) -> Any:
    """The rows as a ``datasets.Dataset`` on disk, filtered by ``where``."""
    rows = _open_file(source, cache_dir) if source.is_file else _open_hub(source, cache_dir)
    if source.where:
        column, value = source.where
        if column not in rows.column_names:
            raise DataError(
                f"{source.label} has no column {column!r} to filter by; its columns are "
                f"{', '.join(rows.column_names)}"
            )
        rows = rows.select([i for i, entry in enumerate(rows[column]) if str(entry) == value])
        if not len(rows):
            raise DataError(f"{source.label} has no row whose {column} is {value!r}")
    if not len(rows):
        raise DataError(f"{source.label} is empty; give a file with examples")
    return rows


def column_of(source: Source, rows: Any, name: str) -> list[str]:
    """The values of a column of ``open_rows``, as text. Raises DataError where there is none."""
    if name not in rows.column_names:
        known = ", ".join(rows.column_names)
        raise DataError(f"{source.label} has no column {name!r}; its columns are {known}")
    return [str(value) for value in rows[name]]


def _open_file(source: Source, cache_dir: Path | None) -> Any:
    path = source.path
    if not path.is_file():
        raise DataError(f"there is no file {path}; check the path on the device")
    if path.stat().st_size == 0:
        raise DataError(f"{source.label} is empty; give a file with examples")
    suffix = path.suffix.lower()
    options = {"delimiter": "\t"} if suffix == ".tsv" else {}
    with quiet_datasets() as datasets:
        try:
            return datasets.load_dataset(
                READERS[suffix],
                data_files=str(path.resolve()),
                split="train",
                cache_dir=_datasets_dir(cache_dir),
                **options,
            )
        except Exception as error:  # readers raise their own, unrelated types
            reason = error.__cause__ or error
            raise DataError(
                f"{source.label} cannot be read as {suffix[1:]}: {str(reason)[:300]}"
            ) from error


def _open_hub(source: Source, cache_dir: Path | None) -> Any:
    name, config, split = source.path_or_name, None, "train"
    if entry := source.entry:
        if entry.hub_id is None:
            raise DataError(f"{name} is on no hub; ask {entry.licence!r} and give it as a file")
        name, config, split = entry.hub_id, entry.config, entry.split
    elif source.path.exists() or name.startswith((".", "/", "~")):
        raise DataError(f"{name} is no file this can read; give .jsonl, .csv or .parquet")
    with quiet_datasets() as datasets:
        try:
            return datasets.load_dataset(
                name, config, split=split, cache_dir=_datasets_dir(cache_dir)
            )
        except Exception as error:  # the hub client raises a dozen unrelated types
            raise DataError(
                f"the dataset {source.path_or_name} cannot be fetched ({type(error).__name__}); "
                "check its name and the network, or give it as a .jsonl, .csv or .parquet file"
            ) from error


def _datasets_dir(cache_dir: Path | None) -> str | None:
    return str(cache_dir / "datasets") if cache_dir else None


@contextmanager
def quiet_datasets() -> Iterator[Any]:
    """The ``datasets`` library (imported only here) without its progress bars and notices."""
    import datasets

    hub = logging.getLogger("huggingface_hub")
    had_progress_bar, hub_level = datasets.is_progress_bar_enabled(), hub.level
    level = datasets.logging.get_verbosity()
    hub.setLevel(logging.ERROR)  # it logs every retry
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        yield datasets
    finally:
        datasets.logging.set_verbosity(level)
        hub.setLevel(hub_level)
        if had_progress_bar:
            datasets.enable_progress_bars()


def content_key(source: Source, cache_dir: Path | None) -> str:
    """A hash that changes when the examples do: of the file's bytes, or of the hub's version."""
    if not source.is_file:
        rows = open_rows(source, cache_dir)
        sums = [str(item) for item in sorted((rows.info.download_checksums or {}).items())]
        parts = [source.path_or_name, len(rows), str(rows.info.version), *sums]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    if not source.path.is_file():
        raise DataError(f"there is no file {source.path}; check the path on the device")
    return sha256_file(source.path)

"""A device's data: formats, columns, the split, the cache, and each fault's words."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from fedcore.errors import DataError
from fedcore.spec.job import DataSpec
from fedcore.train.datasets import Source, describe
from fedcore.train.tokenization import Prepared, prepare, split_rows
from tests.fedcore.conftest import sentences, write_jsonl

DATA = DataSpec(max_source_tokens=16, max_target_tokens=6, validation_fraction=0.25)


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> object:
    return AutoTokenizer.from_pretrained(tiny)


def texts(prepared: Prepared, tokenizer: object) -> list[tuple[str, str]]:
    return [
        (tokenizer.decode(item.source), tokenizer.decode(item.target)) for item in prepared.train
    ]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".jsonl":
        return write_jsonl(path, rows)
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_all_formats_give_the_same_examples(tmp_path: Path, tokenizer: object) -> None:
    sets = []
    for suffix in ("jsonl", "csv", "parquet"):
        path = write(tmp_path / f"rows.{suffix}", sentences(1, 20))
        sets.append(prepare(Source(str(path)), DATA, 0, tokenizer, tmp_path / "cache"))
    assert texts(sets[0], tokenizer) == texts(sets[1], tokenizer) == texts(sets[2], tokenizer)
    assert sets[0].references == sets[1].references == sets[2].references
    assert (len(sets[0].train), len(sets[0].validation), sets[0].examples) == (15, 5, 15)
    source, target = texts(sets[0], tokenizer)[0]
    assert source.startswith("summarize :") and target.endswith("</s>")
    assert max(len(item.source) for item in sets[0].train) == 16


def test_columns_are_mapped_and_guessed(tmp_path: Path, tokenizer: object) -> None:
    rows = [{"dialogue": r["text"], "summary": r["summary"], "x": "y"} for r in sentences(1, 12)]
    path = str(write_jsonl(tmp_path / "a.jsonl", rows))
    info = describe(Source(path, domain="chat"), tmp_path / "cache")
    assert (info.examples, info.text_column, info.summary_column) == (12, "dialogue", "summary")
    assert (info.columns, info.domain) == (("dialogue", "summary", "x"), "chat")
    assert info.bytes == Path(path).stat().st_size
    swapped = Source(path, "summary", "dialogue")
    dataset = prepare(swapped, DATA, 0, tokenizer, tmp_path / "cache")
    assert set(dataset.references) <= {row["dialogue"] for row in rows}


def test_rows_can_be_filtered_by_a_column(
    rows_file: Path, tokenizer: object, tmp_path: Path
) -> None:
    shop = Source(str(rows_file), where=("domain", "shop"))
    assert describe(shop).examples == 8
    dataset = prepare(shop, DATA, 0, tokenizer, tmp_path)
    assert len(dataset.train) + len(dataset.validation) == 8
    with pytest.raises(DataError, match="no row whose domain is 'moon'"):
        describe(Source(str(rows_file), where=("domain", "moon")))
    with pytest.raises(DataError, match=r"'place' to filter by; its columns are text, summary"):
        describe(Source(str(rows_file), where=("place", "moon")))


def test_rows_without_text_or_summary_are_skipped(tmp_path: Path, tokenizer: object) -> None:
    rows = [*sentences(1, 12), {"text": " ", "summary": "a"}, {"text": "a", "summary": None}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    dataset = prepare(Source(str(path)), DATA, 0, tokenizer, tmp_path)
    assert dataset.skipped == 2 and len(dataset.train) + len(dataset.validation) == 12


def test_split_depends_on_content_and_seed_alone() -> None:
    digests = [f"{i:04}" for i in range(40)]
    train, validation = split_rows(digests, 0.25, 7)
    assert sorted(train + validation) == list(range(40)) and len(validation) == 10
    turned = digests[::-1]
    _, other = split_rows(turned, 0.25, 7)
    assert [turned[row] for row in other] == [digests[row] for row in validation]
    assert split_rows(digests, 0.25, 8)[1] != validation
    assert [len(part) for part in split_rows(digests[:2], 0.9, 0)] == [1, 1]


def test_validation_examples_are_capped(rows_file: Path, tokenizer: object, tmp_path: Path) -> None:
    few = DataSpec(max_validation_examples=2, validation_fraction=0.5)
    dataset = prepare(Source(str(rows_file)), few, 0, tokenizer, tmp_path)
    assert (len(dataset.validation), len(dataset.references), len(dataset.train)) == (2, 2, 12)


def test_tokens_are_cached_until_something_changes(
    rows_file: Path, tokenizer: object, tmp_path: Path
) -> None:
    def folders(data: DataSpec = DATA, seed: int = 0) -> int:
        prepare(Source(str(rows_file)), data, seed, tokenizer, tmp_path)
        return len(list((tmp_path / "tokens").iterdir()))

    assert folders() == 1
    assert folders(seed=5) == 1
    assert folders(DataSpec(prefix="short: ")) == 2
    write_jsonl(rows_file, sentences(2, 24))
    assert folders() == 3
    assert not list((tmp_path / "tokens").glob(".*"))


FAULTS = [
    ("gone.jsonl", None, {}, r"there is no file .*gone\.jsonl"),
    ("a.jsonl", "", {}, "empty"),
    ("a.jsonl", '{"text": "x", "summary"\n', {}, r"a\.jsonl cannot be read as jsonl"),
    ("a.csv", "x,y\n1,2\n", {}, "no column known to hold the text; its columns are x, y"),
    (
        "a.csv",
        "text,y\n1,2\n",
        {"text_column": "text"},
        "hold the summary; its columns are text, y",
    ),
    ("a.csv", "x,y\n1,2\n", {"text_column": "t"}, "no column 't'; its columns are x, y"),
    ("a.csv", "text,summary\n,\n", {}, "no example with both"),
    ("a.csv", "text,summary\n" + "a,b\n" * 5, {}, "holds 5 usable examples .* asks for 8"),
    ("a.txt", "hello", {}, r"no file this can read; give \.jsonl, \.csv or \.parquet"),
]


@pytest.mark.parametrize(("name", "content", "columns", "reason"), FAULTS)
def test_data_errors_say_what_to_do(
    tmp_path: Path, tokenizer: object, name: str, content: str | None, columns: dict, reason: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=reason):
        prepare(Source(str(path), **columns), DATA, 0, tokenizer, tmp_path / "cache")


def test_catalogue_and_hub_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="is on no hub"):
        describe(Source("fedjudge"))
    with pytest.raises(DataError, match="the dataset samsum cannot be fetched"):
        describe(Source("samsum"), tmp_path)

"""Laws of all kinds of partition, and their pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedcore.errors import DataError
from fedcore.partition.__main__ import main
from fedcore.partition.kinds import KINDS, parse_partition, partition
from fedcore.partition.split import SplitConfig, as_text, split

# Some arguments of every kind; a kind without any fails the first test.
HOW = {
    "iid": ("iid",),
    "dirichlet": ("dirichlet:0.3", "dirichlet:100"),
    "sizes": ("sizes:0.05", "sizes:0.5", "sizes:100"),
    "column": ("column:domain",),
    "pathological": ("pathological:1", "pathological:2", "pathological:3"),
}
EACH = [how for rows in HOW.values() for how in rows]
LABELS = st.lists(st.sampled_from("abcde"), min_size=30, max_size=80)


def test_every_kind_stands_under_the_laws() -> None:
    assert set(HOW) == set(KINDS) == {parse_partition(how)[0] for how in EACH}


@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("how", EACH)
@given(labels=LABELS, devices=st.integers(1, 6), seed=st.integers(0, 99))
def test_every_row_is_assigned_once_by_seed(
    how: str, labels: list[str], devices: int, seed: int
) -> None:
    parts = _possible(how, labels, devices, seed)
    assert sorted(row for part in parts for row in part) == list(range(len(labels)))
    assert len(parts) == devices and all(parts)
    assert all(part == sorted(part) for part in parts)
    assert parts == partition(how, len(labels), devices, seed, labels)


@settings(max_examples=40, deadline=None)
@given(labels=LABELS, devices=st.integers(1, 6), k=st.integers(1, 5), seed=st.integers(0, 99))
def test_pathological_device_has_exactly_k_labels(
    labels: list[str], devices: int, k: int, seed: int
) -> None:
    parts = _possible(f"pathological:{k}", labels, devices, seed)
    assert {len({labels[row] for row in part}) for part in parts} == {k}


def _possible(how: str, labels: list[str], devices: int, seed: int) -> list[list[int]]:
    """A drawn example's split; one that cannot be made must be refused, and is another test's."""
    try:
        return partition(how, len(labels), devices, seed, labels)
    except DataError as error:
        assume("lower" not in str(error) and "raise" not in str(error))
        raise


@pytest.mark.parametrize("how", ["iid", "dirichlet:0.5", "sizes:0.5", "pathological:2"])
def test_another_seed_is_another_split(how: str) -> None:
    labels = list("abcd" * 50)
    assert partition(how, 200, 4, 0, labels) != partition(how, 200, 4, 1, labels)


def test_pathological_shards_are_cut_by_size() -> None:
    """80 rows of a, 20 of b and of c, on two devices: each label once, and a on both."""
    labels = ["a"] * 80 + ["b"] * 20 + ["c"] * 20
    parts = partition("pathological:2", 120, 2, 3, labels)
    label_sets = sorted(sorted({labels[row] for row in part}) for part in parts)
    assert label_sets == [["a", "b"], ["a", "c"]]
    assert [len(part) for part in parts] == [60, 60]


def test_column_assigns_each_value_to_one_device() -> None:
    labels = ["a", "b", "c", "a", "b", "a"]
    assert partition("column:x", 6, 3, 0, labels) == [[0, 3, 5], [1, 4], [2]]
    assert partition("column:x", 6, 2, 0, labels) == [[0, 3, 5], [1, 2, 4]]


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.sampled_from(["a", "b", "a+b", "a+b (0)", "a+2 more"]), min_size=8),
    devices=st.integers(1, 5),
)
def test_devices_of_a_column_have_distinct_names(labels: list[str], devices: int) -> None:
    """Rows are stored by device name: a repeated name would lose the rows of one device."""
    devices = min(devices, len(set(labels)))
    made = split(SplitConfig("column:x", devices=devices), len(labels), lambda name: labels)
    assert len(set(made.names)) == len(made.parts) == devices


def test_value_with_a_plus_is_one_value() -> None:
    labels = ["a+b"] * 5 + ["a"] * 3 + ["b"] * 2
    made = split(SplitConfig("column:x", devices=2), 10, lambda name: labels)
    assert made.names == ("a+b (0)", "a+b (1)")


def test_smaller_alpha_is_more_uneven() -> None:
    def spread(how: str) -> int:
        sizes = [len(part) for part in partition(how, 3000, 5, 1)]
        return max(sizes) - min(sizes)

    assert spread("sizes:0.2") > 4 * spread("sizes:1000")
    assert spread("iid") == 0


@pytest.mark.parametrize(
    ("how", "rows", "devices", "labels", "reason"),
    [
        ("sorted", 9, 3, (), "unknown partition .* give iid, dirichlet:ALPHA, sizes:ALPHA, col"),
        ("iid:3", 9, 3, (), "unknown partition"),
        ("dirichlet", 9, 3, (), "unknown partition"),
        ("dirichlet:0", 9, 3, "abcabcabc", "above 0"),
        ("sizes:-1", 9, 3, (), "above 0"),
        ("sizes:nan", 9, 3, (), "above 0"),
        ("dirichlet:many", 9, 3, "abcabcabc", "above 0"),
        ("dirichlet:1", 9, 3, (), "--label-column, or take sizes"),
        ("dirichlet:0.0001", 50, 40, "a" * 50, "raise alpha"),
        ("pathological:0", 9, 3, "abcabcabc", "whole number above 0"),
        ("pathological:1.5", 9, 3, "abcabcabc", "whole number above 0"),
        ("pathological:4", 9, 3, "abcabcabc", "there are 3; lower K"),
        ("pathological:1", 9, 2, "abcabcabc", "cannot hold 3 labels; raise K"),
        ("pathological:2", 9, 5, "aaaaaaaab", "too few rows of some labels"),
        ("iid", 2, 3, (), "cannot be dealt out to 3"),
        ("iid", 2, 0, (), "cannot be dealt out to 0"),
        ("column:x", 3, 3, ("a", "a", "b"), "has 2 values"),
        ("column:x", 3, 1, ("a",), "1 labels do not fit 3 rows"),
    ],
)
def test_impossible_partitions_say_what_to_change(
    how: str, rows: int, devices: int, labels: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        partition(how, rows, devices, 0, labels)


def test_table_counts_every_row_once() -> None:
    labels = [f"l{row % 20}" for row in range(400)]
    made = split(SplitConfig("dirichlet:0.4", "domain", 5, 1), 400, lambda name: labels)
    table = made.table(limit=6)
    assert len(table.labels) == 6 and table.labels[-1] == "15 others"
    assert [sum(row) for row in table.counts] == made.sizes and sum(made.sizes) == 400
    whole = made.table(limit=99)
    assert [sum(column) for column in zip(*whole.counts, strict=True)] == [20] * 20


def test_label_distance_bounds() -> None:
    labels = list("ab" * 50)
    apart = split(SplitConfig("column:x"), 100, lambda name: labels)
    assert apart.names == ("a", "b") and apart.distance == 1
    alike = partition("pathological:2", 100, 2, 0, labels)
    whole = split(SplitConfig("pathological:2", "x", 2), 100, lambda name: labels)
    assert whole.parts == alike and whole.distance == 0 and whole.evenness == 1
    assert split(SplitConfig("iid", "x", 1), 100, lambda name: labels).distance == 0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"text": "t", "summary": "s", "domain": "abc"[row % 3]} for row in range(30)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_prints_and_draws(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    out = tmp_path / "split.png"
    options = ["--partition", "pathological:1", "--devices", "3", "--label-column", "domain"]
    assert main(["--data", str(data), *options, "--png", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["device", "rows", "share", "a", "b", "c"]
    assert all(line.split()[1:3] == ["10", "33.3%"] for line in lines[1:4])
    assert lines[-1].startswith("pathological:1, seed 0: 30 rows on 3 devices, 10 to 10 each")
    with Image.open(out) as image:
        assert image.format == "PNG" and image.size[0] > 300 and len(image.getcolors(99999)) > 20


def test_the_command_says_what_to_change(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(data), "--partition", "column:kind"]) == 2
    assert "no column 'kind'; its columns are text, summary, domain" in capsys.readouterr().err
    assert main(["--data", str(data), "--partition", "sizes:0"]) == 2
    assert "above 0" in capsys.readouterr().err


def test_text_names_every_device() -> None:
    made = split(SplitConfig("iid", devices=4), 40, lambda name: [])
    lines = as_text(made).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [f"device-{n}" for n in range(4)]

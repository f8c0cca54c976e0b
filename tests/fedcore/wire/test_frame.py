"""Frames: deterministic bytes, lazy reading, and a clear reason for each bad one."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fedcore.errors import WireError
from fedcore.formats.frame_header import read_header, sha256_file
from fedcore.wire.frame import FrameReader, FrameWriter, check_frame, write_frame

SHAPES = {"a.weight": (2, 3), "b.weight": (4,)}
META = {"kind": "update", "job": "7", "base": "f" * 64}


def good(path: Path, **changes: torch.Tensor) -> Path:
    write_frame(path, {name: torch.ones(shape) for name, shape in SHAPES.items()} | changes, META)
    return path


def check(path: Path, meta: dict[str, str] | None = None, max_bytes: int = 10_000) -> None:
    check_frame(path, SHAPES, meta or META, max_bytes)


def test_frame_is_readable_by_safetensors(tmp_path: Path) -> None:
    tensors = {
        "x": torch.randn(3, 2),
        "half": torch.randn(5).bfloat16(),
        "scalar": torch.tensor(2.5),
        "none": torch.empty(0, 4),
        "odd": torch.arange(6).reshape(2, 3).t(),
    }
    info = write_frame(tmp_path / "f", tensors, {"kind": "update"})
    content = load_file(tmp_path / "f")
    assert all(torch.equal(content[name], tensors[name]) for name in tensors)
    assert (info.sha256, info.size) == (
        sha256_file(tmp_path / "f"),
        (tmp_path / "f").stat().st_size,
    )
    reader = FrameReader(tmp_path / "f")
    assert list(reader) == sorted(tensors) and reader.meta == {"format": "pt", "kind": "update"}
    assert torch.equal(reader["half"], tensors["half"])


@settings(max_examples=20, deadline=None)
@given(st.permutations(sorted("abcdef")))
def test_equal_content_gives_equal_bytes(tmp_path_factory: pytest.TempPathFactory, order) -> None:
    folder = tmp_path_factory.mktemp("frames")
    expected = write_frame(folder / "0", {n: torch.ones(2) for n in "abcdef"}, {"x": "1", "y": "2"})
    shuffled = write_frame(folder / "1", {n: torch.ones(2) for n in order}, {"y": "2", "x": "1"})
    assert expected == shuffled


def test_failed_write_leaves_only_the_old_file(tmp_path: Path) -> None:
    path = good(tmp_path / "f")
    before = path.read_bytes()
    with (
        pytest.raises(RuntimeError, match="disk full"),
        FrameWriter(path, {"a": ("F32", (1,))}, {}),
    ):
        raise RuntimeError("disk full")
    with (
        pytest.raises(ValueError, match="never written"),
        FrameWriter(path, {"a": ("F32", ())}, {}),
    ):
        pass
    assert path.read_bytes() == before and [item.name for item in tmp_path.iterdir()] == ["f"]


def test_valid_frame_passes(tmp_path: Path) -> None:
    check(good(tmp_path / "f"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def truncate_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def spoil_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 20) + b"{" * 20)


def huge_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")


def overlap(path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    raw = json.dumps({"a.weight": entry, "b.weight": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * 4)


def double(path: Path) -> None:
    entry = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    raw = f"{{{entry},{entry}}}".encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * 4)


def negative(path: Path) -> None:
    raw = b'{"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}}'
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * 4)


def rewrite(**tensors: torch.Tensor) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        good(path, **{name.replace("_", "."): value for name, value in tensors.items()})

    return spoil


def half(path: Path) -> None:
    save_file({n: torch.ones(s).half() for n, s in SHAPES.items()}, path, META)


def lack(path: Path) -> None:
    write_frame(path, {"a.weight": torch.ones(2, 3)}, META)


BAD: list[tuple[Callable[[Path], None], str]] = [
    (truncate, "truncated: 3 bytes are missing"),
    (truncate_header, "truncated inside its header"),
    (lengthen, "belong to no tensor"),
    (spoil_header, "no JSON"),
    (huge_header, "header length is nonsense"),
    (overlap, "overlapping"),
    (double, "twice"),
    (negative, "malformed"),
    (half, "'a.weight' is fp16, not fp32"),
    (lack, "wrong names: 1 missing, 0 unexpected .*b.weight"),
    (rewrite(c_weight=torch.ones(1)), "wrong names: 0 missing, 1 unexpected .*c.weight"),
    (rewrite(b_weight=torch.ones(2, 2)), r"'b.weight' is mis-shaped: \[2, 2\] where \[4\]"),
    (rewrite(b_weight=torch.tensor([1, torch.nan, 1, 1])), "'b.weight' holds NaN or infinity"),
    (rewrite(a_weight=torch.full((2, 3), torch.inf)), "'a.weight' holds NaN or infinity"),
]


@pytest.mark.parametrize(("spoil", "reason"), BAD)
def test_invalid_frame_is_refused_with_its_reason(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    path = good(tmp_path / "f")
    spoil(path)
    with pytest.raises(WireError, match=reason):
        check(path)


def test_foreign_and_oversized_frames_are_refused(tmp_path: Path) -> None:
    path = good(tmp_path / "f")
    with pytest.raises(WireError, match="foreign base"):
        check(path, META | {"base": "0" * 64})
    with pytest.raises(WireError, match="job='7' where '8' is due"):
        check(path, META | {"job": "8"})
    with pytest.raises(WireError, match=r"oversized: .* where 100 are allowed"):
        check(path, max_bytes=100)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_raises_wire_error_only(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("garbage") / "f"
    path.write_bytes(data)
    with pytest.raises(WireError):
        check(path)


def test_header_has_sizes(tmp_path: Path) -> None:
    header = read_header(good(tmp_path / "f"))
    assert (header.elements, header.shapes) == (10, SHAPES)

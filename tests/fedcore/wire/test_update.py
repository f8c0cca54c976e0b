"""Updates on the wire: what is written is what is opened, and what does not fit is refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from fedcore.errors import WireError
from fedcore.formats.codec_chain import VALUES, Chain, parse
from fedcore.formats.frame_header import read_header, sha256_file
from fedcore.formats.update_header import (
    JOINED,
    SMALL,
    check_update_header,
    max_frame_bytes,
    payload_bytes,
    rows,
)
from fedcore.wire.chain import bound, join, split
from fedcore.wire.frame import FrameReader, check_frame, write_frame
from fedcore.wire.update import Encoding, open_update, write_update

META = {"kind": "update", "job": "7", "base": "f" * 64}
SHAPES = {"a.weight": (67, 3), "b.weight": (4,), "b.bias": (), "c": (0, 3), "zero": (40,)}
CHAINS = [
    Chain(values, top_k, packed)
    for values in VALUES
    for top_k in (1.0, 0.2)
    for packed in (False, True)
]
chains = pytest.mark.parametrize("chain", CHAINS, ids=str)


def delta(seed: int = 0) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=source) for name, shape in SHAPES.items()}
    return made | {"zero": torch.zeros(SHAPES["zero"])}


def encoding(chain: Chain | str, round_number: int = 1) -> Encoding:
    chain = parse(chain) if isinstance(chain, str) else chain
    return Encoding.of_update(chain, 3, round_number, 0)


@chains
def test_update_round_trips_and_passes_checks(chain: Chain, tmp_path: Path) -> None:
    path, tensors = tmp_path / "u", delta()
    info = write_update(path, tensors, META, encoding(chain))
    assert (info.sha256, info.size) == (sha256_file(path), path.stat().st_size)
    assert [item.name for item in tmp_path.iterdir()] == ["u"]
    opened = open_update(path, SHAPES)
    assert list(opened) == sorted(SHAPES) and opened.shapes == SHAPES
    assert opened.size_bytes == info.size and opened.meta["job"] == "7"
    for row in rows(chain, SHAPES):
        allowed = dict(split(row, SHAPES, bound(chain, join(row, tensors))))
        for name in row.tensors:
            tensor = opened[name]
            assert tensor.shape == SHAPES[name] and tensor.dtype == torch.float32
            assert bool(((tensor - tensors[name]).abs() <= allowed[name]).all())
    header = read_header(path)
    check_update_header(header, SHAPES, chain)
    limit = max_frame_bytes(chain, SHAPES)
    assert info.size <= limit
    check_frame(path, SHAPES, META | {"wire": str(chain)}, limit)
    tensors_bytes = info.size - header.data_start
    assert tensors_bytes <= payload_bytes(chain, SHAPES)
    names = [name for row in rows(chain, SHAPES) for name in row.keys]
    assert set(header.tensors) <= set(names)
    assert len(header.tensors) == (5 if chain.plain else 3 if chain.whole else 1)


@chains
def test_repeated_attempt_writes_equal_bytes(chain: Chain, tmp_path: Path) -> None:
    """Another round or slot rounds otherwise, where rounding is left to chance."""
    first = write_update(tmp_path / "1", delta(), META, encoding(chain))
    assert write_update(tmp_path / "2", delta(), META, encoding(chain)) == first
    other = write_update(tmp_path / "3", delta(), META, encoding(chain, 2))
    assert (other == first) == (chain.values not in ("int8", "int4"))


def test_bf16_updates_keep_names_and_shapes(tmp_path: Path) -> None:
    """So every safetensors reader can look at them, and a fold maps them as they are."""
    write_update(tmp_path / "u", delta(), META, encoding("bf16"))
    content = load_file(tmp_path / "u")
    assert {name: tuple(item.shape) for name, item in content.items()} == {
        name: shape for name, shape in SHAPES.items() if name not in ("c", "zero")
    }
    assert all(item.dtype == torch.bfloat16 for item in content.values())


@chains
def test_residual_equals_the_encoding_error(chain: Chain, tmp_path: Path) -> None:
    """sent + lost = delta, and the lost part joins the next update."""
    lost = tmp_path / "lost"
    write_update(tmp_path / "1", delta(1), META, encoding(chain), residual=lost)
    if not chain.lossy:
        assert not lost.exists()
        return
    sent, residual = open_update(tmp_path / "1", SHAPES), FrameReader(lost)
    for name, tensor in delta(1).items():
        assert torch.equal(residual[name], tensor - sent[name])
    write_update(tmp_path / "2", delta(2), META, encoding(chain), residual, tmp_path / "more")
    due = {name: tensor + residual[name] for name, tensor in delta(2).items()}
    write_update(tmp_path / "3", due, META, encoding(chain))
    assert (tmp_path / "2").read_bytes() == (tmp_path / "3").read_bytes()


def test_error_feedback_preserves_the_sum(tmp_path: Path) -> None:
    """The sum of what arrived differs from the sum of all deltas by one round's residual.

    Without feedback, top-k loses a part that grows every round.
    """
    chain, total, arrived = Chain("int8", 0.1), torch.zeros(67, 3), torch.zeros(67, 3)
    shapes = {"w": (67, 3)}
    constant = torch.linspace(-1, 1, 201).view(67, 3)
    before: FrameReader | None = None
    for number in range(1, 41):
        lost = tmp_path / f"lost-{number}"
        write_update(tmp_path / "u", {"w": constant}, META, encoding(chain, number), before, lost)
        before = FrameReader(lost)
        arrived += open_update(tmp_path / "u", shapes)["w"]
        total += constant
    assert torch.allclose(arrived + before["w"], total, atol=1e-3)
    assert float((total - arrived).norm()) < 0.4 * float(total.norm())
    mask = (constant.abs() >= constant.abs().view(-1).topk(21).values.min()).float()
    without = total * (1 - mask)
    assert float((total - arrived).norm()) < 0.5 * float(without.norm())


def test_non_finite_update_leaves_no_file(tmp_path: Path) -> None:
    spoilt = delta() | {"b.weight": torch.tensor([1.0, torch.nan, 0, 0])}
    with pytest.raises(WireError, match=r"'b.weight' holds NaN"):
        write_update(tmp_path / "u", spoilt, META, encoding("int8"), residual=tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


# What is wrong with a frame of {"w": (300,)} written with int8, and the error's text.
Arrays = dict[str, Tensor]
WRONG: list[tuple[Callable[[Arrays], Arrays], str]] = [
    (lambda a: a | {"1": a["0"]}, "1 unexpected .*'1'"),
    (lambda a: a | {"w": torch.ones(300)}, "unexpected 'w'"),
    (lambda a: {"0": a["0"][:-1]}, "has 305 bytes where 306 to 306 are due"),
    (lambda a: {"0": a["0"].view(2, 153)}, r"mis-shaped: \[2, 153\]"),
    (lambda a: {"0": torch.ones(306)}, "is fp32, not bytes"),
    (lambda a: {"0": torch.full((306,), 0x3F, dtype=torch.uint8)}, ""),
    (lambda a: {"0": torch.full((306,), 0xFF, dtype=torch.uint8)}, "holds NaN or infinity"),
    (lambda a: a | {"0z": torch.ones(9, dtype=torch.uint8)}, "unexpected '0z'"),
]


def judge(path: Path, shapes: dict[str, tuple[int, ...]], wire: str) -> None:
    check_frame(path, shapes, {"wire": wire}, max_frame_bytes(parse(wire), shapes))


def refused(path: Path, arrays: Arrays, wire: str, reason: str) -> None:
    """Writes a frame for {"w": (300,)} and sees it refused; '' where it may pass."""
    write_frame(path, arrays, {"wire": wire})
    shapes = {"w": (300,)}
    if not reason:
        judge(path, shapes, wire)
        return
    with pytest.raises(WireError, match=reason):
        judge(path, shapes, wire)


def sound(path: Path, wire: str) -> Arrays:
    write_update(path, {"w": torch.randn(300)}, {}, encoding(wire))
    return dict(FrameReader(path))


@pytest.mark.parametrize(("spoil", "reason"), WRONG)
def test_mismatched_update_is_refused(
    tmp_path: Path, spoil: Callable[[Arrays], Arrays], reason: str
) -> None:
    arrays = sound(tmp_path / "u", "int8")
    refused(tmp_path / "same", arrays, "int8", "")
    refused(tmp_path / "bad", spoil(arrays), "int8", reason)


SIZES = st.lists(st.sampled_from([0, 1, 7, SMALL, SMALL + 1, JOINED]), max_size=12)


@given(SIZES)
def test_large_tensors_have_rows_of_their_own(sizes: list[int]) -> None:
    shapes = {f"w{place:02}": (size,) for place, size in enumerate(sizes)}
    frame_rows = rows(Chain("int8"), shapes)
    assert [name for row in frame_rows for name in row.tensors] == sorted(shapes)
    for row in frame_rows:
        assert row.numbers == sum(shapes[name][0] for name in row.tensors)
        assert len(row.tensors) == 1 or row.numbers <= JOINED
        assert row.numbers <= SMALL or all(shapes[name][0] <= SMALL for name in row.tensors[1:])
    assert len({row.keys for row in frame_rows}) == len(frame_rows)


def test_tensor_of_a_shared_row_is_a_copy(tmp_path: Path) -> None:
    """Changing what was read changes nothing that is read later."""
    write_update(tmp_path / "u", delta(), META, encoding("int8"))
    opened = open_update(tmp_path / "u", SHAPES)
    before = opened["a.weight"].clone()
    opened["a.weight"].zero_()
    assert torch.equal(opened["a.weight"], before) and bool(before.any())


# Three retained fp32 numbers, 12 bytes, then their places among 300.
PLACES = [
    (bytes([255, 255, 255]), "name 0 places of 300"),
    (bytes([200, 200, 200]), "places of 300"),
    (bytes([9, 9, 9, 9]), "name 4 places"),
    (bytes([9, 9]), "has 14 bytes where 15 to 16 are due"),
    (bytes(9), "has 21 bytes where 15 to 16 are due"),
    (bytes([9, 255, 44]), "name 2 places"),
    (bytes([9, 255, 0, 0]), ""),
]


@pytest.mark.parametrize(("places", "reason"), PLACES)
def test_invalid_places_are_refused(tmp_path: Path, places: bytes, reason: str) -> None:
    row = torch.frombuffer(bytearray(bytes(12) + places), dtype=torch.uint8)
    refused(tmp_path / "u", {"0": row}, "top_k(0.01)+fp32", reason)


def compressed(raw: bytes) -> Tensor:
    return torch.frombuffer(bytearray(zstandard.compress(raw)), dtype=torch.uint8)


PACKED: list[tuple[Tensor, str]] = [
    (compressed(bytes(306)), ""),
    (torch.ones(50, dtype=torch.uint8), "compressed tensor"),
    (compressed(bytes(2**20)), "has 1048576 bytes where 306"),
    (compressed(bytes(305)), "has 305 bytes where 306"),
    (compressed(bytes(306))[:-2], "cannot be read"),
    (torch.ones(306, dtype=torch.uint8), "has 306 bytes where 1 to 305 are due"),
]


@pytest.mark.parametrize(("row", "reason"), PACKED)
def test_decompression_is_bounded(tmp_path: Path, row: Tensor, reason: str) -> None:
    refused(tmp_path / "u", {"0z": row}, "int8+zstd", reason)


def test_duplicate_row_is_refused(tmp_path: Path) -> None:
    row = torch.ones(306, dtype=torch.uint8)
    both = {"0": row, "0z": compressed(bytes(306))}
    refused(tmp_path / "u", both, "int8+zstd", "there twice, as 0 and 0z")


def test_unknown_codec_is_refused_with_known_ones(tmp_path: Path) -> None:
    write_frame(tmp_path / "u", {"w": torch.ones(3)}, {"wire": "int2"})
    with pytest.raises(WireError, match="unknown codec 'int2'; known: fp32, bf16, fp16, int8"):
        open_update(tmp_path / "u", {"w": (3,)})


@settings(max_examples=200, deadline=None)
@given(data=st.data(), chain=st.sampled_from([Chain("int4", 0.2, True), Chain("int8", 0.2)]))
def test_corrupt_bytes_are_refused_or_finite(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, chain: Chain
) -> None:
    """Any byte after the header changed: either a WireError or a finite tensor of the shape."""
    path = tmp_path_factory.mktemp("spoilt") / "u"
    write_update(path, {"w": torch.randn(300)}, {}, encoding(chain))
    raw = bytearray(path.read_bytes())
    start = read_header(path).data_start
    raw[data.draw(st.integers(start, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try:
        judge(path, {"w": (300,)}, str(chain))
    except WireError:
        return
    assert open_update(path, {"w": (300,)})["w"].shape == (300,)


def test_wire_memory_is_one_tensor(tmp_path: Path) -> None:
    """numpy's share of it; torch's does not show here, but both go hand in hand."""
    count, size = 20, 100_000

    class Lazy(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            return torch.full((size,), float(name[1:]) + 1)

    tensors = Lazy.fromkeys([f"t{i}" for i in range(count)], torch.empty(0))
    tracemalloc.start()
    write_update(tmp_path / "u", tensors, {}, encoding("top_k(0.1)+int8+zstd"))
    opened = open_update(tmp_path / "u", dict.fromkeys(tensors, (size,)))
    assert all(float(opened[name].max()) > 0 for name in opened)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * size * 4

"""The fold's bits: whatever the threads, the order, the shards, the type on the wire."""

from __future__ import annotations

import math
import random
import resource
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedcore.aggregation import folds
from fedcore.aggregation.block_pass import BLOCK
from fedcore.aggregation.flat_inputs import Shard
from fedcore.aggregation.fold_task import FoldReport, NextFiles, ServerFiles
from fedcore.aggregation.next_model import fold_files
from fedcore.aggregation.sharding import (
    FoldedShards,
    ShardFile,
    fold_shard,
    join_shards,
    shard_factors,
    spans,
)
from fedcore.aggregation.update_files import UpdateFile, UpdatesRefused
from fedcore.errors import FoldError
from fedcore.formats.codec_chain import parse
from fedcore.spec.job import JobSpec
from fedcore.spec.options.strategy import StrategySpec
from fedcore.wire.frame import FrameReader, write_frame
from fedcore.wire.update import Encoding, write_update

# Three blocks, the last one short, and tensors that begin and end within blocks.
SHAPES = {"a.weight": (300, 1000), "b.bias": (7,), "c.weight": (2 * BLOCK - 300_000 + 1234,)}
ELEMENTS = sum(math.prod(shape) for shape in SHAPES.values())


def noise(seed: int, scale: float = 1.0, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict:  # type: ignore[type-arg]
    generator = torch.Generator().manual_seed(seed)
    return {n: scale * torch.randn(s, generator=generator) for n, s in shapes.items()}


def spec(**options: object) -> JobSpec:
    base = JobSpec(strategy=replace(StrategySpec(), **options))
    return replace(base, adapter=replace(base.adapter, kind="full"))


class Site:
    """A folder with global weights and updates 0 to n - 1; update i is noise(i + 1)."""

    def __init__(self, folder: Path, count: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES):
        self.folder, self.state = folder, None
        folder.mkdir(exist_ok=True)
        self.before = folder / "global"
        write_frame(self.before, noise(0, shapes=shapes), {"kind": "global"})
        self.updates = [self.add(i, noise(i + 1, shapes=shapes)) for i in range(count)]

    def add(self, slot: int, tensors: Mapping[str, Tensor], weight: float = 0.0) -> UpdateFile:
        path = self.folder / f"update-{slot}"
        write_frame(path, tensors, {"kind": "update"})
        return UpdateFile(path, weight or slot + 1.0, slot)

    def fold(
        self, job: JobSpec, updates: Sequence[UpdateFile] | None = None, threads: int = 0
    ) -> FoldReport:
        before = ServerFiles(self.before, None)
        after = NextFiles(self.folder / "after", self.folder / "state")
        return fold_files(job, before, updates or self.updates, after, threads)

    @property
    def after(self) -> dict[str, Tensor]:
        reader = FrameReader(self.folder / "after")
        return {name: reader[name].clone() for name in reader}

    def step(self) -> dict[str, Tensor]:
        old = FrameReader(self.before)
        return {name: tensor - old[name] for name, tensor in self.after.items()}


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
@pytest.mark.parametrize("fold", ["mean", "median", "trimmed_mean"])
def test_fold_bits_ignore_threads_and_order(strategy: str, fold: str, tmp_path: Path) -> None:
    site, job = Site(tmp_path, 5), spec(name=strategy, fold=fold, trim=0.2)
    one = site.fold(job, threads=1)
    for threads in (2, 3, 8):
        shuffled = random.Random(threads).sample(site.updates, 5)
        again = site.fold(job, shuffled, threads)
        assert (again.global_frame, again.state_frame) == (one.global_frame, one.state_frame)
        assert again.update_norms == one.update_norms


def test_mean_matches_fp64(tmp_path: Path) -> None:
    site = Site(tmp_path, 4)
    report = site.fold(spec())
    for name, step in site.step().items():
        expected = sum((i + 1) / 10 * noise(i + 1)[name].double() for i in range(4))
        torch.testing.assert_close(step.double(), expected, rtol=0, atol=2e-6)
    assert report.update_norms[2] == pytest.approx(
        math.sqrt(sum(float(t.double().square().sum()) for t in noise(3).values())), rel=1e-5
    )


def test_many_updates_are_summed_in_fp64(tmp_path: Path) -> None:
    """Equal updates whose fp32 sum would drift; one more than the limit switches to fp64."""
    shapes = {"w": (1000,)}
    drift = {}
    for count in (folds.FP32_UPDATES, folds.FP32_UPDATES + 1):
        site = Site(tmp_path / str(count), 0, shapes)
        updates = [site.add(i, noise(7, shapes=shapes), weight=1.0) for i in range(count)]
        site.fold(spec(), updates)
        expected = FrameReader(site.before)["w"] + noise(7, shapes=shapes)["w"]
        drift[count] = float((site.after["w"] - expected).abs().max())
    fp32, fp64 = drift.values()
    assert fp64 <= 2**-22 < fp32 < 1e-5


def test_key_orders_updates_of_one_slot(tmp_path: Path) -> None:
    site = Site(tmp_path, 3)
    twice = [site.updates[0], site.updates[1], replace(site.updates[2], slot=0, attempt=1)]
    report = site.fold(spec(), twice)
    assert report.weights == {0: pytest.approx(4 / 6), 1: pytest.approx(2 / 6)}
    with pytest.raises(FoldError, match="the same slot and attempt; fold each once"):
        site.fold(spec(), [*twice, replace(site.updates[1], slot=0)])
    with pytest.raises(FoldError, match="all updates have weight zero"):
        site.fold(spec(), [replace(item, weight=0.0) for item in twice])


def test_scale_shortens_the_step(tmp_path: Path) -> None:
    site = Site(tmp_path, 1)
    site.fold(spec(), [replace(site.updates[0], scale=0.25)])
    torch.testing.assert_close(site.step()["b.bias"], 0.25 * noise(1)["b.bias"])


@pytest.mark.parametrize("chain", ["bf16", "int8", "int8+zstd", "fp16"])
def test_encoded_update_folds_as_its_decoded_values(chain: str, tmp_path: Path) -> None:
    site = Site(tmp_path, 2)
    decoded = site.folder / "encoded"
    write_update(decoded, noise(9), {"kind": "update"}, Encoding(parse(chain), 3))
    encoded = UpdateFile(decoded, 3.0, 5)
    mixed = site.fold(spec(), [*site.updates, encoded])
    from fedcore.wire.update import open_update

    plain = site.add(5, dict(open_update(decoded, SHAPES)), weight=3.0)
    assert site.fold(spec(), [*site.updates, plain]).global_frame == mixed.global_frame
    assert list(tmp_path.glob("*.row")) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_update_is_named_and_nothing_written(bad: float, tmp_path: Path) -> None:
    site = Site(tmp_path, 3)
    for slot in (0, 2):
        tensors = noise(slot + 1)
        tensors["c.weight"][-slot - 1] = bad
        site.add(slot, tensors)
    with pytest.raises(UpdatesRefused) as caught:
        site.fold(spec(), threads=2)
    reason = "tensor 'c.weight' holds NaN or infinity; the update is refused"
    assert caught.value.reasons == {(0, 0): reason, (2, 0): reason}
    assert not (tmp_path / "after").exists() and not list(tmp_path.glob(".*"))
    site.fold(spec(), [site.updates[1]])


def test_large_and_tiny_numbers_are_finite(tmp_path: Path) -> None:
    """Their squares overflow or vanish in fp32."""
    site = Site(tmp_path, 0)
    for slot, size in enumerate((1e38, 1e-30)):
        one = site.add(slot, {n: torch.full(s, size) for n, s in SHAPES.items()}, 1.0)
        norms = site.fold(spec(), [one]).update_norms
        assert norms[slot] == pytest.approx(size * math.sqrt(ELEMENTS), rel=1e-6)


def test_fold_raises_the_open_file_limit(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    site = Site(tmp_path, 150, {"w": (5,)})
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        assert len(site.fold(spec()).weights) == 150
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_clipping_uses_the_norm_of_the_whole_update(tmp_path: Path) -> None:
    site = Site(tmp_path, 2)
    report = site.fold(spec(clip_update_norm=5.0))
    for name, step in site.step().items():
        expected = sum(
            (i + 1) / 3 * noise(i + 1)[name] * 5 / report.update_norms[i] for i in range(2)
        )
        torch.testing.assert_close(step, expected, rtol=1e-4, atol=1e-5)


class TestShards:
    @pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
    @pytest.mark.parametrize("fold", ["mean", "median"])
    def test_joined_shards_equal_the_undivided_fold(
        self, strategy: str, fold: str, tmp_path: Path
    ) -> None:
        site = Site(tmp_path, 3)
        job = spec(name=strategy, fold=fold, clip_update_norm=300.0)
        whole = site.fold(job)
        before = ServerFiles(tmp_path / "after", tmp_path / "state")
        second = fold_files(job, before, site.updates, NextFiles(tmp_path / "g", tmp_path / "s"))
        joined = self.sharded(site, job, before, 3)
        assert (joined.global_frame, joined.state_frame) == (
            second.global_frame,
            second.state_frame,
        )
        assert joined.weights == whole.weights
        assert joined.update_norms == pytest.approx(whole.update_norms)
        assert joined.bytes_read == whole.bytes_read

    @staticmethod
    def sharded(site: Site, job: JobSpec, before: ServerFiles, count: int) -> FoldReport:
        factors = shard_factors(job, before, site.updates, site.folder)

        def one(span: tuple[int, int]) -> ShardFile:
            out = site.folder / f"shard-{span[0]}"
            done = fold_shard(job, before, site.updates, Shard(span, factors), out)
            return ShardFile(out, span, done.squares)

        with ThreadPoolExecutor(2) as pool:
            shards = list(pool.map(one, reversed(spans(ELEMENTS, count))))
        after = NextFiles(site.folder / "joined", site.folder / "joined-state")
        return join_shards(job, before, site.updates, FoldedShards(shards, factors), after)

    def test_shard_spans_are_whole_blocks_of_the_row(self) -> None:
        for elements in (1, BLOCK, BLOCK + 1, 10 * BLOCK + 7):
            for count in (1, 2, 3, 50):
                ranges = spans(elements, count)
                assert len(ranges) <= count and ranges[0][0] == 0 and ranges[-1][1] == elements
                assert all(start < stop and start % BLOCK == 0 for start, stop in ranges)
                assert all(one[1] == two[0] for one, two in pairwise(ranges))

    def test_joining_with_a_gap_is_refused(self, tmp_path: Path) -> None:
        site, job = Site(tmp_path, 1), spec()
        before = ServerFiles(site.before, None)
        span = spans(ELEMENTS, 3)[1]
        done = fold_shard(job, before, site.updates, Shard(span, {(0, 0): 1.0}), tmp_path / "one")
        shards = [ShardFile(tmp_path / "one", span, done.squares)]
        with pytest.raises(FoldError, match="leave gaps"):
            folded = FoldedShards(shards, {(0, 0): 1.0})
            after = NextFiles(tmp_path / "g", tmp_path / "s")
            join_shards(job, before, site.updates, folded, after)
        assert not (tmp_path / "g").exists()

    def test_shard_names_its_non_finite_tensor(self, tmp_path: Path) -> None:
        site = Site(tmp_path, 2)
        tensors = noise(2)
        tensors["c.weight"][-1] = math.nan
        site.add(1, tensors)
        factors = {item.key: 1.0 for item in site.updates}
        first, *_, last = spans(ELEMENTS, 3)
        before = ServerFiles(site.before, None)
        fold_shard(spec(), before, site.updates, Shard(first, factors), tmp_path / "one")
        with pytest.raises(UpdatesRefused, match=r"slot 1: tensor .* holds NaN"):
            fold_shard(spec(), before, site.updates, Shard(last, factors), tmp_path / "two")

    def test_shard_decodes_only_its_tensors(self, tmp_path: Path) -> None:
        site = Site(tmp_path, 1)
        coded = tmp_path / "coded"
        write_update(coded, noise(9), {"kind": "update"}, Encoding(parse("int8"), 3))
        site.updates.append(UpdateFile(coded, 3.0, 5))
        whole = site.fold(spec())
        joined = self.sharded(site, spec(), ServerFiles(site.before, None), 3)
        assert joined.global_frame == whole.global_frame

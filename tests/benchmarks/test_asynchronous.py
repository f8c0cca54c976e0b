"""The study of synchronous and asynchronous rounds: its plan, its table, that it goes on."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import asynchronous as study
from benchmarks.asynchronous import FLEET, MODES, SLOWNESS, STEPS, LossCurve, LossPoint, ModeRun
from fedcore.aggregation.fold_task import FoldReport
from fedcore.simulate.federation import _Federation
from fedcore.simulate.round_runner import AggregatedRound, ScheduledUpdate
from fedcore.train.evaluate import Evaluation
from fedcore.wire.frame import FrameInfo


class Idle:
    """A runner whose devices take time and train nothing."""

    names = sorted(SLOWNESS)
    slots = {name: slot for slot, name in enumerate(names)}

    def begin(self) -> str:
        return "0"

    def plan(self) -> None:
        """Nothing differs from device to device."""

    def steps(self, name: str) -> int:
        return STEPS

    def down_bytes(self, base: int) -> int:
        return 230_000

    def up_bytes(self, name: str) -> int:
        return 230_000

    def aggregate(self, number: int, pieces: Sequence[ScheduledUpdate]) -> AggregatedRound:
        frame = FrameInfo(str(number), 0)
        return AggregatedRound(FoldReport({}, {}, None, 0.0, 0, frame, frame), {}, 0)

    def evaluate(self, number: int) -> dict[str, Evaluation]:
        return {}


def end_of(way: str) -> float:
    """Virtual seconds of a run, the mean of three seeds."""
    idle: object = Idle()
    runs = [
        _Federation(ModeRun(way, seed).spec, idle, FLEET, lambda _: None)  # type: ignore[arg-type]
        for seed in (1, 2, 3)
    ]
    return statistics.fmean(item.run()[-1].virtual_s for item in runs)


@pytest.mark.parametrize("way", [way for way in MODES if way != "synchronous"])
def test_modes_take_the_time_of_synchronous_rounds(way: str) -> None:
    assert end_of(way) == pytest.approx(end_of("synchronous"), rel=0.12)


def test_fleet_spreads_tenfold() -> None:
    assert max(SLOWNESS.values()) / min(SLOWNESS.values()) == 10


def test_runs_have_files_of_their_own() -> None:
    files = {ModeRun(way, seed).file for way in MODES for seed in (1, 2, 3)}
    assert len(files) == 3 * len(MODES)


def write_curve(folder: Path, way: str, seed: int, *points: tuple[float, float]) -> None:
    curve = tuple(LossPoint(at, loss, 20.0 + at, loss + 0.1) for at, loss in points)
    actual = LossCurve(curve, 36, 9, 2_000_000, 5.0)
    (folder / ModeRun(way, seed).file).write_text(json.dumps(asdict(actual)))


def test_table_compares_within_each_seed(tmp_path: Path) -> None:
    for seed, shift in ((1, 0.0), (2, 1.0)):
        write_curve(
            tmp_path, "synchronous", seed, (0, 4 + shift), (120, 3 + shift), (240, 2 + shift)
        )
        write_curve(
            tmp_path, "buffered, 3", seed, (0, 4 + shift), (60, 2 + shift), (240, 1 + shift)
        )
        write_curve(tmp_path, "tiers", seed, (0, 4 + shift), (240, 2.5 + shift))
    write_curve(tmp_path, "tiers", 1, (0, 4.0), (120, 1.9))
    rows = {line.split(" | ")[0]: line for line in study.table(tmp_path, list(MODES), (1, 2, 3))}
    assert "| 60 ± 0 | 4.0 ± 0.0 x | 240 ± 0 | 1.500 ± 0.707 |" in rows["| buffered, 3"]
    assert "| 240 ± 0 | 1.0 ± 0.0 x |" in rows["| synchronous"]
    assert "| 120 (1 never) | 2.0 x |" in rows["| tiers"]
    assert "| deadline" not in rows


def test_complete_study_only_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_curve(tmp_path, "synchronous", 1, (0, 4.0), (240, 2.0))
    parser = argparse.ArgumentParser()
    study.add_arguments(parser)
    arguments = ["--folder", str(tmp_path), "--ways", "synchronous", "--seeds", "1"]
    assert study.run(parser.parse_args(arguments)) == 0
    assert "| synchronous | 240 | 1.0 x | 240 | 2.000 | 2.100 | 260.0 | 36 | 9 | 2.0 |" in (
        capsys.readouterr().out
    )

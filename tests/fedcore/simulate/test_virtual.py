"""A fleet's clock drives the simulation: who is waited for, what arrives when, how old it is."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fedcore.errors import EdgewiseError, SpecError
from fedcore.formats.frame_header import read_header
from fedcore.hardware.links import LINKS, Link
from fedcore.hardware.virtual_device import Machine
from fedcore.simulate.__main__ import main
from fedcore.simulate.federation import simulate
from fedcore.simulate.fleet_options import FleetOptions, fleet_of
from fedcore.simulate.results import RoundResult, SimulationEvent, global_file
from fedcore.train.datasets import Source
from fedcore.train.loop import TrainSummary
from tests.fedcore.conftest import sentences, spec_of, write_jsonl

SPEEDS = {"attic": 1.0, "barn": 2.0, "kitchen": 10.0}
FLEET = {name: Machine(seconds) for name, seconds in SPEEDS.items()}
LAST_ONLY = {"every": 0, "initial": False}


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Source]:
    return {
        name: Source(str(write_jsonl(tmp_path / f"{name}.jsonl", sentences(seed, 20 + seed))))
        for seed, name in enumerate(SPEEDS)
    }


class Site:
    def __init__(self, tiny: Path, folder: Path, sources: dict[str, Source]) -> None:
        self.tiny, self.folder, self.sources, self.runs = tiny, folder, sources, 0

    def run(
        self, part: dict[str, object], fleet: dict[str, Machine] | None = None, **changes: object
    ) -> list[RoundResult]:
        """Three steps a round, unless ``changes`` say otherwise; evaluated after the last."""
        self.runs += 1
        values = {"evaluation": LAST_ONLY, "train": {"local_steps": 3}, **changes}
        spec = spec_of(self.tiny, participation=part, **values)
        folder = self.folder / f"run-{self.runs}"
        return simulate(spec, self.sources, folder, fleet=FLEET if fleet is None else fleet)


@pytest.fixture
def site(tiny: Path, tmp_path: Path, sources: dict[str, Source]) -> Site:
    return Site(tiny, tmp_path, sources)


def times(results: list[RoundResult]) -> list[float]:
    return [item.virtual_s for item in results[1:]]


def test_round_takes_the_slowest_devices_time(site: Site) -> None:
    slow = site.run({}, rounds=2)
    assert times(slow) == [30.0, 60.0]
    assert slow[-1].sha256 == site.run({}, {}, rounds=2)[-1].sha256, "the clock changes no bit"


def test_links_add_transfer_time(site: Site) -> None:
    link = Link(up_bps=1000.0, down_bps=4000.0, delay_s=0.5)
    fleet = {name: Machine(1.0, link) for name in SPEEDS}
    (_, result) = site.run({}, fleet, rounds=1)
    model = global_file(site.folder / "run-1", 0)
    numbers = sum(math.prod(shape) for shape in read_header(model).shapes.values())
    assert result.bytes_down == 3 * model.stat().st_size
    expected = 3.0 + 2 * 0.5 + model.stat().st_size / 4000 + 4 * numbers / 1000
    assert result.virtual_s == pytest.approx(expected)


def test_over_selected_devices_are_not_awaited(site: Site) -> None:
    results = site.run({"fraction": 0.6, "over_selection": 0.5}, rounds=2)
    assert times(results) == [6.0, 12.0]
    assert [set(item.training) for item in results[1:]] == [{"attic", "barn"}] * 2


def test_quantile_deadline_drops_stragglers(site: Site) -> None:
    results = site.run({"deadline_quantile": 0.6, "deadline_slack": 1.5}, rounds=3)
    assert times(results) == [30.0, 39.0, 48.0]
    assert [len(item.training) for item in results[1:]] == [3, 2, 2]


def test_round_fails_below_quorum_at_deadline(site: Site) -> None:
    with pytest.raises(EdgewiseError, match="round 1 failed: 1 of 2 needed devices reported by"):
        site.run({"deadline_s": 5.0, "lease_s": 5.0}, rounds=1)


def test_tiers_group_devices_by_speed(tiny: Path, tmp_path: Path) -> None:
    names = [f"d{number}" for number in range(4)]
    sources = {
        name: Source(str(write_jsonl(tmp_path / f"{name}.jsonl", sentences(seed, 20))))
        for seed, name in enumerate(names)
    }
    fleet = {name: Machine(10.0 if name in ("d1", "d2") else 1.0) for name in names}
    part = {"fraction": 0.5, "tiers": 2}
    spec = spec_of(
        tiny, rounds=8, participation=part, evaluation=LAST_ONLY, train={"local_steps": 1}
    )
    results = simulate(spec, sources, tmp_path / "sim", fleet=fleet)
    members = [set(item.training) for item in results[3:]]
    assert all(one in ({"d0", "d3"}, {"d1", "d2"}) for one in members)


def test_buffered_job_never_waits_for_all(site: Site) -> None:
    """attic reports every 3 s, barn every 6, kitchen every 30; two updates make a version."""
    results = site.run({"mode": "buffered", "buffer_size": 2}, rounds=7)
    assert times(results) == [6.0, 9.0, 12.0, 18.0, 21.0, 24.0, 30.0]
    trained = [sorted(item.training) for item in results[1:4]]
    assert trained == [["attic", "barn"], ["attic"], ["attic", "barn"]]
    assert results[1].staleness == (0, 0)
    assert results[2].staleness == (1, 0)
    assert max(results[7].staleness) == 6, "kitchen's first update"
    assert "kitchen" in results[7].training
    assert results[7].mean and not results[6].mean


def test_buffered_run_is_deterministic(site: Site) -> None:
    rule = {"mode": "buffered", "buffer_size": 1, "staleness_discount": "polynomial"}
    one = site.run(rule, rounds=4)
    assert one[-1].sha256 == site.run(rule, rounds=4)[-1].sha256
    assert one[-1].sha256 != site.run(rule | {"staleness_discount": "none"}, rounds=4)[-1].sha256


def test_staleness_discount_shrinks_the_step(site: Site) -> None:
    """With a buffer of one there is nobody else whom a lower weight could favour."""
    from fedcore.wire.frame import FrameReader

    rule = {"mode": "buffered", "buffer_size": 1, "staleness_exponent": 1.0}

    def step_of(run: int, number: int) -> float:
        old, new = (
            FrameReader(global_file(site.folder / f"run-{run}", n)) for n in (number - 1, number)
        )
        return sum(float((new[name] - old[name]).square().sum()) for name in new) ** 0.5

    results = site.run(rule, rounds=3)
    site.run(rule | {"staleness_discount": "none"}, rounds=3)
    assert [item.staleness for item in results[1:]] == [(0,), (1,), (1,)]
    assert step_of(1, 1) == pytest.approx(step_of(2, 1))
    assert step_of(1, 2) == pytest.approx(step_of(2, 2) / 2, rel=1e-4)


def test_too_stale_updates_are_not_folded(site: Site) -> None:
    rule = {"mode": "buffered", "buffer_size": 1, "max_staleness": 1}
    results = site.run(rule, rounds=14)
    assert max(max(item.staleness) for item in results[1:]) <= 1
    assert not any("kitchen" in item.training for item in results[1:])


def test_repeated_training_uses_another_order(site: Site) -> None:
    fleet = FLEET | {"barn": Machine(100.0), "kitchen": Machine(100.0)}
    spec = spec_of(
        site.tiny,
        rounds=1,
        participation={"mode": "buffered", "buffer_size": 2},
        evaluation=LAST_ONLY,
        train={"local_steps": 3},
    )
    events: list[SimulationEvent] = []
    simulate(spec, site.sources, site.folder / "twice", events.append, fleet=fleet)
    trained = [event for event in events if event.kind == "trained"]
    assert [event.device for event in trained] == ["attic", "attic"]
    one, two = (event.value for event in trained)
    assert isinstance(one, TrainSummary) and isinstance(two, TrainSummary)
    assert one.loss != two.loss


FILES = [
    ('[[device]]\nslowness = 3\n[[device]]\nseconds_per_step = 0.5\nlink = "wifi"', "", 2),
    ("[[device]]\n", "does not describe b; add them", 2),
    ('[[device]]\nname = "x"', "there is no device 'x'", 2),
    ("[[device]]\nspeed = 3", "unknown 'speed'", 2),
    ("[[device]]\nslowness = -3", "slowness must be a number above 0, not -3", 2),
    ('[[device]]\nlink = "pigeon"', "unknown link 'pigeon'", 2),
    ("device = 3", "must be a list of tables", 2),
    ("[[", "cannot read", 2),
]


@pytest.mark.parametrize(("text", "fault", "count"), FILES)
def test_fleet_file_is_read_or_refused(tmp_path: Path, text: str, fault: str, count: int) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    names = ["a", "b"][:count]
    if fault:
        with pytest.raises(SpecError, match=fault):
            fleet_of(FleetOptions(file=str(path)), names)
        return
    fleet = fleet_of(FleetOptions(file=str(path), step_seconds=2.0), names)
    assert fleet == {"a": Machine(6.0), "b": Machine(0.5, LINKS["wifi"])}


def test_speeds_are_assigned_in_turn() -> None:
    fleet = fleet_of(FleetOptions((1.0, 10.0), "lan", 0.5), ["c", "a", "b"])
    assert {name: item.seconds_per_step for name, item in fleet.items()} == {
        "a": 0.5,
        "b": 5.0,
        "c": 0.5,
    }
    assert fleet["a"].link == LINKS["lan"]
    assert fleet_of(FleetOptions(), ["a"]) == {}


def run(tiny: Path, folder: Path, *more: str) -> int:
    data = write_jsonl(folder / "rows.jsonl", sentences(1, 48))
    return main(
        ["--model", str(tiny), "--data", str(data), "--rounds", "3", "--local-steps", "2",
         "--batch-size", "4", "--max-source-tokens", "32", "--max-target-tokens", "12",
         "--max-validation-examples", "3", "--precision", "fp32", "--threads", "1", *more]
    )  # fmt: skip


def test_command_prints_virtual_seconds(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    more = ["--speeds", "1,2,10", "--mode", "buffered", "--buffer-size", "2", "--json", str(out)]
    assert run(tiny, tmp_path, *more, "--evaluate-every", "0") == 0
    text = capsys.readouterr().out
    assert "model ready at 4.0 virtual s" in text and "versions old" in text
    rounds = json.loads(out.read_text())["rounds"]
    assert [item["virtual_s"] for item in rounds] == [0.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--speeds", "fast"], "--speeds: give slownesses"),
        (["--speeds", "1,0"], "--speeds: give slownesses"),
        (["--speeds", "1", "--link", "pigeon"], "--link: unknown link 'pigeon'"),
        (["--fleet", "/none.toml"], "--fleet: cannot read /none.toml"),
        (["--speeds", "1", "--step-seconds", "0"], "--step-seconds"),
        (["--mode", "buffered", "--tiers", "2"], "participation.tiers: is for synchronous"),
    ],
)
def test_bad_fleet_prints_one_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], reason: str
) -> None:
    assert run(tiny, tmp_path, *more) == 2
    assert reason in capsys.readouterr().err

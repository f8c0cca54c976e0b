"""Energy through the real recorder: samples, reports and phases."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from workers.agent.http.byte_counts import Traffic
from workers.agent.power.account import AssignmentEnergy
from workers.agent.power.meter import Meter
from workers.agent.power.sensor import Sensor
from workers.agent.state.database import StateDatabase
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import SharedState
from workers.agent.telemetry.recorder import AssignmentRecorder


class Curve:
    """A gauge whose power a test sets, and a clock that it moves; the meter is real."""

    def __init__(self, watts: float) -> None:
        self.now = 0.0
        self.power: float | None = watts
        self.meter = Meter(Sensor("ina3221", "a test", 100.0, lambda: self.power), lambda: self.now)

    def draw(self, recorder: AssignmentRecorder, watts: float | None, seconds: float) -> None:
        """From now on so much, for so long, looked at twice a second."""
        self.power = watts
        self.now += 1e-7  # a power changes in no time on a curve alone
        recorder.energy.poll()
        for _ in range(int(2 * seconds)):
            self.now += 0.5
            recorder.energy.poll()


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(StateDatabase(tmp_path / "agent.sqlite3"))


def recorder_of(outbox: Outbox, energy: AssignmentEnergy) -> AssignmentRecorder:
    return AssignmentRecorder(
        outbox, SharedState(outbox._database), Traffic(), lambda: "t", "a", energy
    )


def assignment(recorder: AssignmentRecorder, curve: Curve, gap_s: float = 0.0) -> dict[str, float]:
    """Four seconds of waiting at 2 W, two of transfer at 3 W, ten of training at 9 W, and one of
    transfer at 3 W with three of waiting for the server in it; a gap may be in the training."""
    curve.draw(recorder, 2.0, 4)
    recorder.enter("downloading")
    curve.draw(recorder, 3.0, 2)
    recorder.enter("training")
    curve.draw(recorder, 9.0, 10 - gap_s)
    recorder.record({"loss": 1.0})
    if gap_s:
        curve.draw(recorder, None, gap_s)
        curve.draw(recorder, 9.0, 1)
    recorder.enter("uploading")
    curve.draw(recorder, 3.0, 0.5)
    with recorder.waiting():
        curve.draw(recorder, 1.0, 3)
    curve.draw(recorder, 3.0, 0.5)
    return recorder.energy.report()


def test_energy_parts_follow_phases_and_sum_to_total(outbox: Outbox) -> None:
    curve = Curve(2.0)
    recorder = recorder_of(outbox, AssignmentEnergy(curve.meter))
    report = assignment(recorder, curve)
    assert report == {
        "compute_j": pytest.approx(90.0),
        "communication_j": pytest.approx(9.0),
        "waiting_j": pytest.approx(8.0 + 3.0),
        "energy_j": pytest.approx(110.0),
    }
    parts = sum(value for name, value in report.items() if name != "energy_j")
    assert parts == pytest.approx(report["energy_j"], abs=1e-9)


def test_samples_count_each_joule_once(outbox: Outbox) -> None:
    curve = Curve(2.0)
    recorder = recorder_of(outbox, AssignmentEnergy(curve.meter))
    report = assignment(recorder, curve)
    recorder.record({})
    recorder.record({"loss": 0.5})  # nothing new was drawn: the power is known, no energy
    rows = [item.values for item in outbox.oldest(9)]
    assert sum(row.get("energy_j", 0.0) for row in rows) == pytest.approx(report["energy_j"])
    assert rows[0]["watts"] == pytest.approx((8 + 6 + 90) / 16)
    assert "energy_j" not in rows[-1] and rows[-1]["watts"] == rows[-2]["watts"]


def test_total_with_a_gap_is_not_reported(outbox: Outbox) -> None:
    curve = Curve(2.0)
    recorder = recorder_of(outbox, AssignmentEnergy(curve.meter))
    assert assignment(recorder, curve, gap_s=3.0) == {}
    recorder.record({})
    assert "watts" not in outbox.oldest(9)[1].values


def test_estimate_replaces_a_missing_sensor_and_is_named(outbox: Outbox) -> None:
    """The estimate here is exact, so that its numbers identify it."""
    curve, steady = Curve(2.0), Curve(4.0)
    recorder = recorder_of(outbox, AssignmentEnergy(curve.meter, steady.meter))
    for _ in range(10):
        curve.now, steady.now = curve.now + 1, steady.now + 1
        recorder.energy.poll()
    recorder.record({})
    curve.power = None
    for _ in range(10):
        curve.now, steady.now = curve.now + 1, steady.now + 1
        recorder.energy.poll()
    recorder.record({})
    first, second = (item.values for item in outbox.oldest(9))
    assert first["watts"] == pytest.approx(2.0) and first["energy_j"] == pytest.approx(20.0)
    assert "watts_estimated" not in first
    assert second["watts_estimated"] == pytest.approx(4.0)
    assert second["energy_estimated_j"] == pytest.approx(40.0)
    assert "watts" not in second and "energy_j" not in second
    report = recorder.energy.report()
    assert report["energy_estimated_j"] == pytest.approx(80.0) == pytest.approx(report["waiting_j"])
    assert "energy_j" not in report


def test_no_sensor_reports_nothing(outbox: Outbox) -> None:
    with recorder_of(outbox, AssignmentEnergy()) as recorder:
        recorder.enter("training")
        recorder.record({"loss": 1.0})
    rows = [item.values for item in outbox.oldest(9)]
    assert not {name for row in rows for name in row if "watts" in name or name.endswith("_j")}
    assert recorder.energy.report() == {}


def test_recorder_polls_the_power(outbox: Outbox) -> None:
    read_event = threading.Event()
    meter = Curve(5.0)

    class Watched:
        def read(self):  # type: ignore[no-untyped-def]
            read_event.set()
            return meter.meter.read()

    energy = AssignmentEnergy(Watched())
    with recorder_of(outbox, energy):
        assert read_event.wait(10)

"""The simulation with codecs: its bits are those of the devices' own trainer and the server's fold,
killed and repeated attempts included."""

from __future__ import annotations

import math
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedcore.aggregation.fold_task import NextFiles, ServerFiles
from fedcore.aggregation.next_model import fold_and_serve
from fedcore.aggregation.update_files import UpdateFile
from fedcore.formats.frame_header import read_header, sha256_file
from fedcore.formats.wire_offer import AcceptedUpdate, WireOffer
from fedcore.simulate.federation import simulate
from fedcore.simulate.results import RoundResult, global_file
from fedcore.spec.job import JobSpec
from fedcore.train.datasets import Source
from fedcore.wire.downlink import rebuild
from fedcore.wire.frame import check_frame
from tests.fedcore.conftest import sentences, spec_of, write_jsonl
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.contract import Callbacks, Received
from workers.agent.assignment.trainer import FedcoreTrainer
from workers.agent.profile.local_datasets import LocalDataset

DEVICES = ("attic", "kitchen")
JOB = str(uuid.UUID(int=7))
WATCH = Callbacks(lambda: False, lambda done, total: None, lambda values: None)

WIRES: list[dict[str, Any]] = [
    {"uplink": "int8"},
    {"uplink": "int4", "top_k": 0.1, "compress": True, "downlink": "int4"},
    {"uplink": "fp32", "downlink": "bf16"},
    {"uplink": "int8", "error_feedback": False, "downlink": "int8"},
]
wires = pytest.mark.parametrize("wire", WIRES, ids=str)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Source]:
    return {
        name: Source(str(write_jsonl(tmp_path / f"{name}.jsonl", sentences(seed, 20 + seed))))
        for seed, name in enumerate(DEVICES)
    }


class Device:
    """A device's own trainer; ``restart`` loses all but what is on its disk."""

    def __init__(self, spec: JobSpec, slot: int, source: Source, folder: Path) -> None:
        self.spec, self.slot, self.folder = spec, slot, folder
        folder.mkdir()
        name = DEVICES[slot]
        self.datasets = {name: LocalDataset(name, source.path_or_name, "", "", "")}
        self.accepted: AcceptedUpdate | None = None
        self.restart()

    def restart(self) -> None:
        cache, feedback = self.folder / "cache", self.folder / "feedback"
        self.trainer = FedcoreTrainer(
            cache, 1, self.datasets, feedback, cache / "own", {"peak_flops": {}}
        )

    def train(self, number: int, weights: Path, attempt: int = 1) -> UpdateFile:
        offer = WireOffer(self.spec.wire.chain, self.accepted)
        work = AssignedWork(
            assignment=f"{number}-{attempt}", job=JOB, job_name="", round=number, task="train",
            slot=self.slot, dataset=DEVICES[self.slot], spec=self.spec,
            global_sha256=sha256_file(weights), global_size=0, deadline=None,
            max_update_bytes=10**9, wire=WireOffer.read(offer.to_dict()),
        )  # fmt: skip
        path = self.folder / f"update-{number}-{attempt}"
        outcome = self.trainer.train(work, Received(weights), path, WATCH)
        assert outcome.update is not None
        shapes, meta = read_header(weights).shapes, {"job": JOB, "wire": str(offer.chain)}
        check_frame(path, shapes, meta, 10**6)
        return UpdateFile(path, outcome.examples, self.slot)

    def was_accepted(self, number: int, update: UpdateFile) -> None:
        chain = self.spec.wire.chain
        assert chain is not None
        self.accepted = AcceptedUpdate(number, sha256_file(update.path), chain)


@pytest.mark.slow
@wires
def test_devices_and_server_match_the_simulation(
    tiny: Path, tmp_path: Path, sources: dict[str, Source], wire: dict[str, Any]
) -> None:
    """Attempts that were killed after their residual was written, restarts, a rebuilt model."""
    spec = spec_of(tiny, wire=wire, rounds=3)
    results = simulate(spec, sources, tmp_path / "sim")
    devices = [
        Device(spec, slot, sources[name], tmp_path / name) for slot, name in enumerate(DEVICES)
    ]
    model, state = global_file(tmp_path / "sim", 0), None
    for number in (1, 2, 3):
        lost = devices[0].train(number, model)
        devices[0].restart()
        updates = [device.train(number, model, attempt=2) for device in devices]
        assert lost.path.read_bytes() == updates[0].path.read_bytes()
        for device, update in zip(devices, updates, strict=True):
            device.was_accepted(number, update)
        names = ("model", "state", "step")
        after = NextFiles(*(tmp_path / f"{name}-{number}" for name in names))
        served = fold_and_serve(spec, ServerFiles(model, state), updates[::-1], after)
        assert sha256_file(after.model) == results[number].sha256
        if served.step:
            actual = rebuild(model, after.step, tmp_path / "rebuilt")
            assert actual.sha256 == results[number].sha256
            header = read_header(after.step)
            assert header.meta["base"] == sha256_file(model) and header.size == served.step.size
        assert (served.step is None) == (wire.get("downlink", "fp32") == "fp32")
        model, state = after.model, after.state


@pytest.mark.slow
def test_rejected_update_keeps_the_former_residual(
    tiny: Path, tmp_path: Path, sources: dict[str, Source]
) -> None:
    """Round 2's update is refused: round 3 goes on from what round 1 lost, and only then."""
    spec = spec_of(tiny, wire={"uplink": "int4"})
    write = {name: Device(spec, 0, sources["attic"], tmp_path / name) for name in ("one", "two")}
    model = global_file(tmp_path / "sim", 0)
    simulate(replace(spec, rounds=1), sources, tmp_path / "sim")
    for device in write.values():
        device.was_accepted(1, device.train(1, model))
    write["one"].train(2, model)
    third = {name: device.train(3, model) for name, device in write.items()}
    assert third["one"].path.read_bytes() == third["two"].path.read_bytes()
    accepted = write["one"].accepted
    assert accepted is not None
    files = {path.name for path in (tmp_path / "one" / "feedback" / JOB).iterdir()}
    assert files == {accepted.file, AcceptedUpdate(3, sha256_file(third["one"].path)).file}
    write["two"].accepted = None
    without = write["two"].train(3, model, attempt=2)
    assert without.path.read_bytes() != third["two"].path.read_bytes()


@pytest.mark.slow
def test_lossy_codecs_cost_little(tiny: Path, tmp_path: Path, sources: dict[str, Source]) -> None:
    def last(folder: str, **wire: object) -> RoundResult:
        spec = spec_of(tiny, wire=wire, rounds=4, train={"learning_rate": 0.02, "local_steps": 4})
        return simulate(spec, sources, tmp_path / folder)[-1]

    exact, eighth = last("fp32"), last("int8", uplink="int8", downlink="int8")
    assert exact.bytes_up > 1.5 * eighth.bytes_up
    assert exact.bytes_down > eighth.bytes_down
    assert math.isclose(exact.mean["loss"], eighth.mean["loss"], rel_tol=0.01)

"""PFTT through the agent's trainer: its upload, and its files on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from fedcore.formats.frame_header import read_header
from fedcore.formats.wire_offer import WireOffer
from fedcore.model.initial import write_initial
from fedcore.spec.job import JobSpec
from tests.fedcore.conftest import make_model, sentences, spec_of, write_jsonl
from workers.agent.assignment import private_folders
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.contract import Callbacks, Outcome, Received
from workers.agent.assignment.trainer import FedcoreTrainer
from workers.agent.profile import local_datasets

JOB = str(uuid4())
SILENT = Callbacks(lambda: False, lambda done, total: None, lambda values: None)


class Device:
    """A device's trainer, as a fresh agent process makes it."""

    def __init__(self, folder: Path, spec: JobSpec) -> None:
        self.folder, self.spec = folder, spec
        self.private = folder / "private"
        self.weights = folder / "global"
        write_initial(spec, self.weights)
        rows = write_jsonl(folder / "law.jsonl", sentences(1, 24))
        self.datasets = {"law": local_datasets.parse(f"law={rows}")}
        self.start()

    def start(self) -> None:
        profile: dict[str, Any] = {"peak_flops": {}, "precision": "fp32"}
        self.trainer = FedcoreTrainer(
            self.folder / "cache", 1, self.datasets, self.folder / "feedback", self.private, profile
        )

    def work(self, task: str, number: int) -> AssignedWork:
        return AssignedWork.read(
            {
                "assignment": str(uuid4()), "job": JOB, "job_name": "j", "round": number,
                "task": task, "slot": 0, "dataset": "law", "spec": self.spec.to_dict(),
                "tailoring": {"method.own_rank": 5},
                "global": {"sha256": "0" * 64, "size_bytes": 1}, "deadline_at": None,
                "max_update_bytes": 10**8,
            }
        )  # fmt: skip

    def train(self, number: int) -> bytes:
        path = self.folder / "update.safetensors"
        self.trainer.train(self.work("train", number), Received(self.weights), path, SILENT)
        return path.read_bytes()

    def evaluate(self, number: int) -> Outcome:
        return self.trainer.evaluate(self.work("evaluate", number), self.weights, SILENT)


def test_personal_lora_stays_and_is_found_on_return(tmp_path: Path) -> None:
    spec = spec_of(
        make_model(tmp_path / "tiny"),
        adapter={"kind": "bottleneck", "width": 6},
        method={"name": "pftt"},
    )
    device = Device(tmp_path, spec)
    device.train(1)
    shared = set(read_header(device.weights).tensors)
    sent = read_header(tmp_path / "update.safetensors")
    assert set(sent.tensors) == shared and not any("lora" in name for name in sent.tensors)
    assert b"lora" not in (tmp_path / "update.safetensors").read_bytes()
    lora_files = [path for path in (device.private / JOB).iterdir() if "own-lora" in path.name]
    assert len(lora_files) == 1
    assert {min(shape) for shape in read_header(lora_files[0]).shapes.values()} == {5}

    third = device.train(3)  # it sat the second round out
    device.start()  # and was restarted before it could report
    assert device.train(3) == third

    metrics = device.evaluate(3).metrics
    assert metrics["personal_loss"] != metrics["loss"]
    assert {"personal_rouge1", "personal_rouge2", "personal_rougeL"} <= set(metrics)
    assert all(isinstance(value, (int, float)) for value in metrics.values()), metrics


def test_finished_job_keeps_only_the_devices_own_model(tmp_path: Path) -> None:
    over, running, other = (tmp_path / name for name in ("over", "running", "other"))
    for folder in (over, running, other):
        folder.mkdir()
        (folder / "control-000002.safetensors").write_bytes(b"c")
    for name in ("own-lora-000001-000.safetensors", "own-lora-000002-000.safetensors"):
        (over / name).write_bytes(b"l")
    private_folders.remove_finished_jobs(
        tmp_path, WireOffer()
    )  # a server that does not say which jobs are open
    assert len(list(over.iterdir())) == 3
    private_folders.remove_finished_jobs(tmp_path, WireOffer(jobs=frozenset({"running"})))
    assert [path.name for path in over.iterdir()] == ["own-lora-000002-000.safetensors"]
    assert running.is_dir() and not other.exists()
    private_folders.remove_finished_jobs(tmp_path / "none", WireOffer(jobs=frozenset()))

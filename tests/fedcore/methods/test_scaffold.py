"""SCAFFOLD on both sides: what a device keeps, what the server finds, and that drift goes away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedcore.aggregation.fold_task import NextFiles, ServerFiles
from fedcore.aggregation.next_model import fold_files
from fedcore.aggregation.server_optimizers import server_controls
from fedcore.aggregation.update_files import UpdateFile
from fedcore.errors import TrainingError
from fedcore.methods.contract import Context, DeviceState
from fedcore.methods.registry import term_of
from fedcore.methods.scaffold import SERVER_KEY
from fedcore.methods.session import Session, Update
from fedcore.model.initial import write_initial
from fedcore.plan.cost.flops import Cost
from fedcore.simulate.federation import simulate
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source
from fedcore.train.loop import TrainingTask
from fedcore.wire.frame import FrameReader, write_frame
from tests.fedcore.conftest import sentences, spec_of, write_jsonl

RATE, STEPS = 0.05, 3


def scaffold(tiny: Path, name: str = "scaffold", **changes: Any) -> JobSpec:
    train = {
        "optimizer": "sgd", "learning_rate": RATE, "local_steps": STEPS, "dropout": 0.0,
        "clip_norm": 0.0, **changes.pop("train", {}),
    }  # fmt: skip
    adapter = {"rank": 2, "dropout": 0.0}
    return spec_of(tiny, train=train, adapter=adapter, strategy={"name": name}, **changes)


def frame(path: Path, prefix: str = "") -> dict[str, Tensor]:
    reader = FrameReader(path)
    return {n.removeprefix(prefix): reader[n].clone() for n in reader if n.startswith(prefix)}


class Device:
    """One device, the first model, and a served c that a test makes up."""

    def __init__(self, folder: Path, spec: JobSpec) -> None:
        self.folder, self.spec = folder, spec
        folder.mkdir(exist_ok=True)
        self.source = Source(str(write_jsonl(folder / "rows.jsonl", sentences(3, 24))))
        self.model = folder / "global"
        write_initial(spec, self.model)
        self.session = Session(folder / "cache")

    def serve(self, seed: int, scale: float = 0.1) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        shapes = FrameReader(self.model).header.shapes
        tensors = {n: scale * torch.randn(s, generator=generator) for n, s in shapes.items()}
        named = {f"{SERVER_KEY} {n}": t for n, t in tensors.items()}
        write_frame(self.folder / "state", named, {"kind": "state"})
        return tensors

    def train(self, number: int, served: bool = False) -> Update:
        state = DeviceState(self.folder / "own", self.folder / "state" if served else None)
        return self.session.train(self.spec, self.model, self.source, number, 0, device_state=state)

    def control(self, number: int) -> dict[str, Tensor]:
        return frame(self.folder / "own" / f"control-{number:06}.safetensors")


def test_first_scaffold_round_equals_fedavg(tiny: Path, tmp_path: Path) -> None:
    one = Device(tmp_path / "1", scaffold(tiny)).train(1)
    two = Device(tmp_path / "2", scaffold(tiny, "fedavg")).train(1)
    assert all(torch.equal(one.tensors[n], two.tensors[n]) for n in two.tensors)
    assert any(bool(t.any()) for t in one.tensors.values())


def test_gradients_get_the_control_difference(tiny: Path, tmp_path: Path) -> None:
    """One SGD step beside FedAvg's from the same weights on the same batch."""
    spec = scaffold(tiny, train={"local_steps": 1})
    device = Device(tmp_path / "1", spec)
    device.train(1)
    control, server = device.control(1), device.serve(5)
    plain = Device(tmp_path / "2", scaffold(tiny, "fedavg", train={"local_steps": 1})).train(2)
    corrected = device.train(2, served=True)
    for n in server:
        expected = plain.tensors[n] - RATE * (server[n] - control[n])
        torch.testing.assert_close(corrected.tensors[n], expected, rtol=1e-4, atol=1e-6)


def test_micro_batch_gradients_equal_the_batch(tiny: Path, tmp_path: Path) -> None:
    """The linear term counts once a step, however its batch is divided."""
    actual = []
    for number, micro in enumerate((0, 1)):
        spec = scaffold(tiny, train={"local_steps": 1, "micro_batch": micro})
        device = Device(tmp_path / str(number), spec)
        device.serve(5)
        actual.append(device.train(1, served=True).tensors)
    for n in actual[0]:
        torch.testing.assert_close(actual[0][n], actual[1][n], rtol=1e-3, atol=1e-6)


def test_device_control_follows_option_2(tiny: Path, tmp_path: Path) -> None:
    device = Device(tmp_path, scaffold(tiny))
    first = device.train(1)
    for n, control in device.control(1).items():
        torch.testing.assert_close(control, -first.tensors[n] / (STEPS * RATE))
    before, server = device.control(1), device.serve(5)
    second = device.train(2, served=True)
    for n, control in device.control(2).items():
        expected = before[n] - server[n] - second.tensors[n] / (STEPS * RATE)
        torch.testing.assert_close(control, expected, rtol=1e-5, atol=1e-6)


def test_repeated_round_starts_from_previous_control(tiny: Path, tmp_path: Path) -> None:
    device = Device(tmp_path, scaffold(tiny))
    for number in (1, 3):  # it sat round 2 out
        device.train(number)
    device.serve(5)
    one = device.train(4, served=True)
    content = (tmp_path / "own" / "control-000004.safetensors").read_bytes()
    again = device.train(4, served=True)
    assert all(torch.equal(one.tensors[n], again.tensors[n]) for n in one.tensors)
    assert (tmp_path / "own" / "control-000004.safetensors").read_bytes() == content
    files = sorted(path.name for path in (tmp_path / "own").iterdir())
    assert files == ["control-000003.safetensors", "control-000004.safetensors"]


def test_scaffold_without_folder_is_refused(tiny: Path, tmp_path: Path) -> None:
    device = Device(tmp_path, scaffold(tiny))
    with pytest.raises(TrainingError, match="give it a private folder"):
        device.session.train(device.spec, device.model, device.source, 1, 0)


@given(st.lists(st.tuples(*[st.floats(-2, 2)] * 2), min_size=4, max_size=4), st.integers(1, 4))
def test_server_control_needs_only_the_mean_delta(
    devices: list[tuple[float, float]], present: int
) -> None:
    """c+ = c + f mean(c_i+ - c_i) of Algorithm 1, for any c_i and deltas of those present."""
    path, c = STEPS * RATE, sum(control for control, _ in devices) / 4
    changed = [(control - c - delta / path) - control for control, delta in devices[:present]]
    expected = c + present / 4 * sum(changed) / present
    delta = sum(delta for _, delta in devices[:present]) / present
    stage = server_controls(1.0, present / 4, path)
    step, after = stage.run(
        torch.tensor([delta], dtype=torch.float64),
        {"c": torch.tensor([c], dtype=torch.float64)},
        torch.zeros(1),
    )
    assert float(after["c"]) == pytest.approx(expected, abs=1e-9)
    assert float(step) == delta


def test_server_control_is_mean_of_devices(tiny: Path, tmp_path: Path) -> None:
    """All take part: after any round c is the mean of all c_i, weighted by examples."""
    names = ("a", "b", "c")
    sources = {
        name: Source(str(write_jsonl(tmp_path / f"{name}.jsonl", sentences(i, 20 + 8 * i))))
        for i, name in enumerate(names)
    }
    results = simulate(scaffold(tiny, rounds=3), sources, tmp_path / "work")
    state = frame(tmp_path / "work" / "state-3.safetensors", f"{SERVER_KEY} ")
    assert results[-1].fold is not None
    weights = results[-1].fold.weights
    assert len(set(weights.values())) == 3
    for n, c in state.items():
        mean = torch.zeros_like(c)
        for slot, share in weights.items():
            path = tmp_path / "work" / f"own-{slot}" / "control-000003.safetensors"
            mean += share * frame(path)[n]
        torch.testing.assert_close(c, mean, rtol=1e-4, atol=1e-5)
    assert any(bool(c.any()) for c in state.values())


@pytest.mark.parametrize("participation", [{"fraction": 0.5}, {"fraction": 0.1, "minimum": 2}])
def test_server_control_counts_absent_devices(
    tiny: Path, tmp_path: Path, participation: dict[str, Any]
) -> None:
    """Two of three take part each round, whatever the fraction is: c is the mean of all c_i."""
    rows = sentences(3, 24)
    sources = {
        name: Source(str(write_jsonl(tmp_path / f"{name}.jsonl", rows[i:] + rows[:i])))
        for i, name in enumerate("abc")
    }
    spec = scaffold(tiny, rounds=4, participation=participation)
    results = simulate(spec, sources, tmp_path / "work")
    assert all(sorted(row.fold.weights.values()) == [0.5, 0.5] for row in results[1:] if row.fold)
    state = frame(tmp_path / "work" / "state-4.safetensors", f"{SERVER_KEY} ")
    newest = [max((tmp_path / "work" / f"own-{slot}").iterdir()) for slot in range(3)]
    for n, c in state.items():
        mean = sum(frame(path)[n] for path in newest) / 3
        torch.testing.assert_close(c, mean, rtol=1e-4, atol=1e-5)
    assert any(bool(c.any()) for c in state.values())


def test_new_run_in_same_folder_starts_anew(tiny: Path, tmp_path: Path) -> None:
    sources = {
        name: Source(str(write_jsonl(tmp_path / f"{name}.jsonl", sentences(i, 20))))
        for i, name in enumerate(("a", "b", "c"))
    }
    spec = scaffold(tiny, rounds=3, participation={"fraction": 0.5})
    runs = [simulate(spec, sources, tmp_path / "work")[-1].sha256 for _ in range(2)]
    assert runs[0] == runs[1]


class Bowls:
    """Two devices whose losses are bowls with unlike curvatures and bottoms; real terms and folds.

    Their sum has its bottom at sum(a b) / sum(a); local steps pull FedAvg away from it.
    """

    BOWLS = ((torch.tensor([4.0, 1.0]), torch.tensor([1.0, -1.0])),
             (torch.tensor([1.0, 3.0]), torch.tensor([-2.0, 2.0])))  # fmt: skip

    def __init__(self, folder: Path, name: str) -> None:
        spec = parse_spec(
            {
                "strategy": {"name": name},
                "train": {"optimizer": "sgd", "local_steps": 8, "learning_rate": 0.1},
                "adapter": {"kind": "full"},
            }
        )
        self.folder, self.spec, self.state = folder, spec, None
        folder.mkdir()
        write_frame(folder / "global-0", {"w": torch.zeros(2)}, {"kind": "global"})

    def local(self, number: int, slot: int) -> dict[str, Tensor]:
        before = FrameReader(self.folder / f"global-{number - 1}")["w"].clone()
        model = torch.nn.Module()
        model.w = torch.nn.Parameter(before.clone())
        work = TrainingTask(
            model,
            None,
            self.spec.train,
            Cost(0, 0),
            0,
            torch.device("cpu"),
            torch.float32,  # type: ignore[arg-type]
        )
        device_state = DeviceState(self.folder / f"own-{slot}", self.state)
        term = term_of(Context(self.spec, work, number, device_state))
        optimizer = torch.optim.SGD(model.parameters(), lr=self.spec.train.learning_rate)
        curvature, bottom = self.BOWLS[slot]
        for _ in range(self.spec.train.local_steps):
            loss = 0.5 * (curvature * (model.w - bottom).square()).sum()
            penalty = term.penalty({"w": model.w})
            (loss if penalty is None else loss + penalty).backward()
            optimizer.step()
            optimizer.zero_grad()
        delta = {"w": model.w.detach() - before}
        term.finish(delta, self.spec.train.local_steps)
        return delta

    def run(self, rounds: int) -> Tensor:
        for number in range(1, rounds + 1):
            files = []
            for slot in (0, 1):
                path = self.folder / f"update-{slot}"
                write_frame(path, self.local(number, slot), {"kind": "update"})
                files.append(UpdateFile(path, 1.0, slot))
            out, state = self.folder / f"global-{number}", self.folder / f"state-{number}"
            before = ServerFiles(self.folder / f"global-{number - 1}", self.state)
            fold_files(self.spec, before, files, NextFiles(out, state))
            self.state = state
        return FrameReader(self.folder / f"global-{rounds}")["w"].clone()

    @classmethod
    def bottom(cls) -> Tensor:
        (a, b), (c, d) = cls.BOWLS
        return (a * b + c * d) / (a + c)


def test_controls_remove_client_drift(tmp_path: Path) -> None:
    averaged = Bowls(tmp_path / "fedavg", "fedavg").run(60)
    controlled = Bowls(tmp_path / "scaffold", "scaffold").run(60)
    assert float((averaged - Bowls.bottom()).norm()) > 0.3
    torch.testing.assert_close(controlled, Bowls.bottom(), rtol=1e-3, atol=1e-3)


def test_clipping_does_not_change_the_formulas(tiny: Path, tmp_path: Path) -> None:
    """A clipped step counts as it was taken: c_i is computed from how far the weights moved."""
    spec = scaffold(tiny)
    device = Device(tmp_path, replace(spec, train=replace(spec.train, clip_norm=0.01)))
    update = device.train(1)
    for n, control in device.control(1).items():
        torch.testing.assert_close(control, -update.tensors[n] / (STEPS * RATE))

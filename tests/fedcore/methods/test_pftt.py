"""PFTT's laws (arXiv 2404.13238): the personal LoRA stays on its device and serves again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from fedcore.architecture.sizes import architecture_of
from fedcore.errors import SpecError, TrainingError
from fedcore.formats.frame_header import read_header
from fedcore.methods.contract import DeviceState
from fedcore.methods.pftt.method import STEM
from fedcore.methods.round_files import RoundFiles
from fedcore.methods.session import Session, Update
from fedcore.model.adapters import shared_parameters
from fedcore.model.export_folder import export_adapter
from fedcore.model.initial import write_initial
from fedcore.model.tuned import load_tuned
from fedcore.plan.cost.step_flops import lora_cost
from fedcore.plan.cost.workload import Workload
from fedcore.simulate.federation import simulate
from fedcore.simulate.results import SimulationEvent, global_file
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import Member, lora_of, tailored, tailoring
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source
from fedcore.wire.frame import FrameReader
from tests.fedcore.conftest import sentences, spec_of, write_jsonl

NEVER = LATEST = (10**6, 0)


def pftt(
    model: Path | str, method: Mapping[str, object] | None = None, **changes: object
) -> JobSpec:
    options = {"name": "pftt", "own_rank": 3, **(method or {})}
    return spec_of(model, adapter={"kind": "bottleneck", "width": 6}, method=options, **changes)


class Bench:
    """One device, and the first global weights of a job."""

    def __init__(self, folder: Path, spec: JobSpec) -> None:
        self.folder, self.spec = folder, spec
        self.weights = folder / "global"
        write_initial(spec, self.weights)
        self.source = Source(str(write_jsonl(folder / "rows.jsonl", sentences(3, 24))))
        self.session = Session(folder / "cache", 1)

    def train(self, number: int, place: str = "own", draw: int = 0) -> Update:
        state = DeviceState(self.folder / place)
        return self.session.train(
            self.spec, self.weights, self.source, number, 0, None, draw, state
        )

    def personal_lora(
        self, place: str = "own", latest: tuple[int, int] = LATEST
    ) -> dict[str, torch.Tensor]:
        path = RoundFiles(self.folder / place, STEM).newest(latest)
        assert path is not None
        frame = FrameReader(path)
        return {name: frame[name].clone() for name in frame}


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def bench(tiny: Path, tmp_path: Path) -> Bench:
    return Bench(tmp_path, pftt(tiny))


def test_update_excludes_the_personal_lora(bench: Bench) -> None:
    update = bench.train(1)
    assert set(update.tensors) == set(FrameReader(bench.weights))
    assert not any("lora" in name for name in update.tensors)
    assert any(delta.any() for delta in update.tensors.values())
    lora = bench.personal_lora()
    assert lora and all(".lora_" in name for name in lora)
    assert any(tensor.any() for name, tensor in lora.items() if ".lora_B." in name)


def test_device_continues_after_missed_rounds(bench: Bench) -> None:
    bench.train(1)
    former = bench.personal_lora()
    returned = bench.train(5)
    assert not same(former, bench.personal_lora())
    fresh = bench.train(5, place="nothing")
    assert not same(returned.tensors, fresh.tensors)
    assert not same(bench.personal_lora(), bench.personal_lora("nothing"))
    # Another session, such as after a restart, finds the same.
    bench.session = Session(bench.folder / "other-cache", 1)
    again = bench.train(5)
    assert same(again.tensors, returned.tensors)


def test_repeated_round_starts_from_previous_file(bench: Bench) -> None:
    for number in (1, 2):
        first, once = bench.train(number), bench.personal_lora()
        second, twice = bench.train(number), bench.personal_lora()
        assert same(first.tensors, second.tensors) and same(once, twice)
    assert len(list((bench.folder / "own").iterdir())) == 2  # this round's and the one before
    bench.train(2, draw=1)  # an asynchronous device trains on the same model once more
    assert not same(bench.personal_lora(), once)
    assert same(bench.personal_lora(latest=(2, 0)), once)


def test_partial_file_is_ignored(bench: Bench) -> None:
    bench.train(1)
    former = bench.personal_lora()
    (bench.folder / "own" / ".own-lora-000002-000.safetensors.7.part").write_bytes(b"half")
    assert same(bench.personal_lora(), former)
    bench.train(2)


def test_missing_folder_is_refused(bench: Bench) -> None:
    with pytest.raises(TrainingError, match="private folder"):
        bench.session.train(bench.spec, bench.weights, bench.source, 1, 0)


def test_shared_and_personal_models_are_evaluated(bench: Bench) -> None:
    state = DeviceState(bench.folder / "own")

    def evaluated(number: int) -> dict[str, float]:
        actual = bench.session.evaluate(
            bench.spec, bench.weights, bench.source, None, number, state
        )
        return actual.values()

    before = evaluated(0)
    assert before["personal_loss"] == before["loss"]  # no personal LoRA yet
    bench.train(1)
    after = evaluated(1)
    assert after["loss"] == before["loss"]  # the shared model is the same: no LoRA leaks into it
    assert after["personal_loss"] != after["loss"]
    assert {"personal_rouge1", "personal_rouge2", "personal_rougeL"} <= set(after)
    assert evaluated(0) == {**before, "seconds": pytest.approx(before["seconds"], abs=60)}


def test_exported_model_scores_as_evaluated(bench: Bench) -> None:
    bench.train(1)
    folder = export_adapter(bench.spec, bench.weights, bench.folder / "home")
    lora_path = RoundFiles(bench.folder / "own", STEM).newest(LATEST)
    model, _ = load_tuned(folder, lora_path)
    prepared = bench.session.prepare(bench.spec, bench.source).validation
    actual = bench.session.evaluate(
        bench.spec, bench.weights, bench.source, None, 1, DeviceState(bench.folder / "own")
    )
    from fedcore.train.batches import SpecialTokens, collate, forward, token_losses

    batch = collate([prepared[row] for row in range(len(prepared))], SpecialTokens.of(model.config),
                    torch.device("cpu"))  # fmt: skip
    with torch.no_grad():
        loss = token_losses(forward(model, batch, torch.float32), batch).sum()
    assert float(loss) / batch.target_tokens == pytest.approx(
        actual.more["personal_loss"], rel=1e-4
    )


def test_devices_have_different_ranks() -> None:
    spec = pftt("nano", {"own_ranks": ["2", "pi=5"], "own_targets": ["q", "wo"]})
    for member, rank in ((Member(0, "a"), 2), (Member(1, "pi"), 5)):
        overridden = tailored(spec, tailoring(spec, member))
        lora = lora_of(overridden)
        assert lora is not None and (lora.rank, lora.scale) == (rank, 2.0)
        sizes = architecture_of("nano")
        assert sizes is not None
        method = Workload.of(overridden, sizes, "fp32")
        assert method.cost == lora_cost(sizes, rank, ("q", "wo"), 6)
        assert method.served_weights == sizes.bottleneck_parameters(6)
        assert method.trained == method.served_weights + sizes.lora_parameters(rank, ("q", "wo"))


def test_simulation_sends_no_personal_lora(tiny: Path, tmp_path: Path) -> None:
    spec = pftt(tiny, {"own_ranks": ["2", "4"]})
    devices = {
        name: Source(str(write_jsonl(tmp_path / f"{name}.jsonl", sentences(seed, 24))))
        for seed, name in enumerate("ab")
    }
    sent: list[tuple[int, set[str]]] = []

    def look(event: SimulationEvent) -> None:
        """At the update a device has just written, as it would be uploaded."""
        if event.kind == "trained":
            slot = list(devices).index(event.device)
            header = read_header(tmp_path / "work" / f"update-{slot}-0.safetensors")
            sent.append((slot, set(header.tensors)))

    results = simulate(spec, devices, tmp_path / "work", look)
    shared = set(FrameReader(global_file(tmp_path / "work", 0)))
    assert shared and not any("lora" in name for name in shared)
    assert sent == [(slot, shared) for _ in range(2) for slot in range(2)]
    assert set(FrameReader(global_file(tmp_path / "work", 2))) == shared
    for slot, rank in ((0, 2), (1, 4)):
        path = RoundFiles(tmp_path / "work" / f"own-{slot}", STEM).newest(LATEST)
        assert path is not None and path.name.startswith("own-lora-000002")
        frame = FrameReader(path)
        assert {min(frame[name].shape) for name in frame} == {rank}
    last = results[-1]
    assert all(actual.more["personal_loss"] != actual.loss for actual in last.evaluations.values())
    assert last.mean["personal_loss"] == pytest.approx(
        sum(item.more["personal_loss"] for item in last.evaluations.values()) / 2
    )
    assert json.dumps(last.to_dict())


def test_fedprox_restrains_shared_weights_only(tiny: Path, tmp_path: Path) -> None:
    """Under the strongest restraint to the received model, the personal LoRA still learns."""
    spec = pftt(
        tiny,
        strategy={"name": "fedprox", "proximal_mu": 1e4},
        train={"optimizer": "sgd", "local_steps": 4, "learning_rate": 1e-4},
    )
    bench = Bench(tmp_path, spec)
    bench.train(1)
    first = bench.personal_lora()
    bench.spec = pftt(tiny, train={"optimizer": "sgd", "local_steps": 4, "learning_rate": 1e-4})
    bench.train(1, "free")
    free = bench.personal_lora("free")
    ups = [name for name in first if ".lora_B." in name]
    for name in ups:
        assert float(first[name].norm()) == pytest.approx(float(free[name].norm()), rel=0.05)


def test_shared_parameters_exclude_lora(bench: Bench) -> None:
    bench.train(1)
    loaded = bench.session._loaded
    assert loaded is not None
    names = [name for name, _ in shared_parameters(loaded.model, "bottleneck")]
    assert names and not any("lora" in name for name in names)


@pytest.mark.parametrize(
    ("changes", "path", "text"),
    [
        ({"adapter": {"kind": "lora"}}, "adapter.kind", "must be bottleneck with pftt"),
        ({"adapter": {"kind": "full"}}, "adapter.kind", "must be bottleneck with pftt"),
        (
            {"adapter": {"kind": "bottleneck", "aggregation": "stack"}},
            "adapter.aggregation",
            "LoRA",
        ),
        (
            {"strategy": {"name": "scaffold"}, "train": {"optimizer": "sgd"}},
            "strategy.name",
            "scaffold finds",
        ),
        ({"method": {"name": "pftt", "own_ranks": ["0"]}}, "method.own_ranks", "from 1 to 1024"),
    ],
)
def test_invalid_pftt_combinations_are_refused(
    changes: dict[str, object], path: str, text: str
) -> None:
    values = {"adapter": {"kind": "bottleneck"}, "method": {"name": "pftt"}, **changes}
    with pytest.raises(SpecError) as caught:
        parse_spec(values)
    faults = {fault.path: fault.message for fault in caught.value.faults}
    assert text in faults[path]

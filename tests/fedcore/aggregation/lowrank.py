"""A server of adapters in a folder, for tests of the rules that average them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcore.aggregation.fold_task import FoldReport, NextFiles, ServerFiles
from fedcore.aggregation.next_model import fold_files
from fedcore.aggregation.update_files import UpdateFile
from fedcore.model.kinds.lora import initial_lora
from fedcore.model.received import SCALE_KEY, adapter_of
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import Member, factor_name, tailored, tailoring, trained_shapes
from fedcore.spec.parse import parse_spec
from fedcore.wire.frame import FrameReader, write_frame

MODULES = ("encoder.block.0.layer.0.SelfAttention.q", "encoder.block.0.layer.0.SelfAttention.v")
OUT, IN = 24, 20
Update = tuple[Mapping[str, Tensor], float, int]


def job(rule: str, rank: int = 4, **changes: Any) -> JobSpec:
    adapter = {"aggregation": rule, "rank": rank, "alpha": 3.0 * rank, **changes.pop("adapter", {})}
    return parse_spec({"adapter": adapter, **changes})


def device_spec(spec: JobSpec, slot: int) -> JobSpec:
    return tailored(spec, tailoring(spec, Member(slot, f"device-{slot}")))


@dataclass
class Server:
    """Global weights in a folder. Devices start from their own part of them, and move at random."""

    folder: Path
    spec: JobSpec
    round: int = 0
    state: Path | None = None

    def __post_init__(self) -> None:
        if self.round:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        rank = self.spec.adapter.rank
        shapes = {factor_name(m, "A"): (rank, IN) for m in MODULES}
        shapes |= {factor_name(m, "B"): (OUT, rank) for m in MODULES}
        meta = {"kind": "global", "fingerprint": "abc", SCALE_KEY: repr(self.spec.adapter.scale)}
        write_frame(self.path, initial_lora(shapes, 1), meta)

    @property
    def path(self) -> Path:
        return self.folder / f"global-{self.round}"

    @property
    def frame(self) -> FrameReader:
        return FrameReader(self.path)

    def start(self, slot: int) -> dict[str, Tensor]:
        scale = float(self.frame.meta[SCALE_KEY])
        return adapter_of(self.frame, scale, device_spec(self.spec, slot))

    def delta(self, slot: int, seed: int, size: float = 0.3) -> dict[str, Tensor]:
        """The update of a device that moved at random: no frozen factor, its ranks."""
        draw = torch.Generator().manual_seed(seed)
        shapes = trained_shapes(device_spec(self.spec, slot), self.frame.shapes)
        return {n: size * torch.randn(s, generator=draw) for n, s in sorted(shapes.items())}

    def ended(self, slot: int, delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``s B A`` of each module that the device trained."""
        spec, start = device_spec(self.spec, slot), self.start(slot)
        whole = {name: start[name] + delta.get(name, 0.0) for name in start}
        names = [m for m in MODULES if factor_name(m, "A") in whole]
        return {m: spec.adapter.scale * whole[factor_name(m, "B")].double()
                @ whole[factor_name(m, "A")].double() for m in names}  # fmt: skip

    def effective(self, module: str) -> Tensor:
        """What the model's matrix differs from the base by: adapter and what was taken in."""
        frame, scale = self.frame, float(self.frame.meta[SCALE_KEY])
        b, a = (frame[factor_name(module, factor)].double() for factor in "BA")
        product = scale * (b @ a)
        if factor_name(module, "MA") in frame:
            up, down = (frame[factor_name(module, factor)].double() for factor in ("MB", "MA"))
            product = product + up @ down
        return product

    def fold(self, updates: Sequence[Update], **reported: Any) -> FoldReport:
        files = []
        for tensors, weight, slot in updates:
            path = self.folder / f"update-{self.round}-{slot}"
            write_frame(path, tensors, {"kind": "update"})
            slot_spec = device_spec(self.spec, slot)
            fields = {name: value[slot] for name, value in reported.items()}
            files.append(UpdateFile(path, weight, slot, spec=slot_spec, **fields))
        number = self.round + 1
        after, state = self.folder / f"global-{number}", self.folder / f"state-{number}"
        before = ServerFiles(self.path, self.state)
        report = fold_files(self.spec, before, files, NextFiles(after, state))
        self.round, self.state = number, state
        return report


def close(one: Tensor, two: Tensor, to: float = 1e-5) -> bool:
    return float((one - two).norm()) <= to * max(1e-3, float(two.norm()))


def means(server: Server, updates: Sequence[Update]) -> dict[str, Tensor]:
    """W of each module, densely; shares over the devices that trained it."""
    averages: dict[str, Tensor] = {}
    for module in MODULES:
        rows = [
            (weight, server.ended(slot, delta)[module])
            for delta, weight, slot in updates
            if module in server.ended(slot, delta)
        ]
        if rows:
            whole = sum(weight for weight, _ in rows)
            averages[module] = torch.stack([w / whole * product for w, product in rows]).sum(0)
    return averages

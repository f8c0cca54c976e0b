"""The downlink: the server's step on the wire, and a model rebuilt from the old one and a step.

The server applies the step exactly as devices decode it: new = old + decode(encode(step +
residual)), rounded to the nearest; what is lost joins the next step. So a device that has the old
model rebuilds the new one bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedcore.formats.codec_chain import Chain
from fedcore.formats.update_header import WIRE_KEY, rows
from fedcore.wire.chain import array_of, encode, join
from fedcore.wire.codecs import NearestRounding
from fedcore.wire.frame import FrameInfo, FrameReader, FrameWriter
from fedcore.wire.update import EncodedWriter, open_update

RESIDUAL = " downlink.residual"  # after a tensor's name, its key in the strategy's state


@dataclass(frozen=True)
class StepSource:
    """What a step is made from: the models before and after a fold, the states before and after."""

    before: Path
    folded: Path
    state_before: Path | None
    state: Path


@dataclass(frozen=True)
class SentStep:
    """The step, the model and the state that were written."""

    step: FrameInfo
    model: FrameInfo
    state: FrameInfo


def send_step(
    chain: Chain, source: StepSource, base: str, step: Path, model: Path, state: Path
) -> SentStep:
    """Write the step (``base``: SHA-256 of the model before), the model it leads to, the state."""
    steps = _Steps(source)
    meta = {"kind": "step", "base": base, WIRE_KEY: str(chain)}
    with torch.no_grad():
        with EncodedWriter(step, meta) as out:
            for row in rows(chain, steps.shapes):
                parts = encode(chain, row.tensors[0], join(row, steps), NearestRounding())
                out.put(array_of(chain, row, parts))
            written = out.finish()
        rebuilt = rebuild(source.before, step, model)
        # Write the strategy's state, and beside it what this step lost.
        sent = open_update(step, steps.shapes)
        lost = {name + RESIDUAL: name for name in steps.shapes}
        moments = {key: entry for key, entry in steps.state.layout.items() if key not in lost}
        layout = moments | {key: ("F32", steps.shapes[name]) for key, name in lost.items()}
        with FrameWriter(state, layout, dict(steps.state.meta)) as writer:
            for key in writer.order:
                name = lost.get(key)
                writer.write(key, steps[name] - sent[name] if name else steps.state[key])
        assert writer.info is not None
        return SentStep(written, rebuilt, writer.info)


def rebuild(before: Path | str, step: Path | str, out: Path | str) -> FrameInfo:
    """Write the model that a step leads to. Raises WireError where the two do not fit."""
    old = FrameReader(before)
    steps = open_update(step, old.header.shapes)
    layout = {name: ("F32", shape) for name, (_, shape) in old.layout.items()}
    with FrameWriter(out, layout, dict(old.meta)) as writer:
        for name in writer.order:
            writer.write(name, old[name].float() + steps[name])
    assert writer.info is not None
    return writer.info


class _Steps(Mapping[str, Tensor]):
    """The exact steps of a fold, plus what earlier steps lost."""

    def __init__(self, source: StepSource) -> None:
        self._old, self._new = FrameReader(source.before), FrameReader(source.folded)
        self._former = FrameReader(source.state_before) if source.state_before else {}
        self.state = FrameReader(source.state)
        self.shapes = self._old.header.shapes

    def __getitem__(self, name: str) -> Tensor:
        step = self._new[name].float() - self._old[name].float()
        former: Mapping[str, Tensor] = self._former
        key = name + RESIDUAL
        return step + former[key] if key in former else step

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

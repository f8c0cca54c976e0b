"""The planner's list of matrices against the model's own modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcore.architecture.matrices import matrices
from fedcore.architecture.sizes import KNOWN, architecture_of
from fedcore.model.kinds.lora import lora_shapes
from fedcore.model.load import resolve
from fedcore.model.skeleton import skeleton
from fedcore.spec.options.adapter import LORA_TARGETS, AdapterSpec
from fedcore.spec.overrides import factor_of
from tests.fedcore.conftest import make_model


@pytest.mark.parametrize("changes", [{}, {"num_layers": 3, "num_decoder_layers": 1}])
def test_matrices_are_those_of_the_model(tmp_path: Path, changes: dict[str, int]) -> None:
    folder = make_model(tmp_path / "model", **changes)
    sizes = architecture_of(str(folder))
    assert sizes is not None
    shapes = lora_shapes(skeleton(resolve(str(folder))), AdapterSpec(rank=1, targets=LORA_TARGETS))
    inputs = {factor_of(name)[0]: shape[1] for name, shape in shapes.items() if ".lora_A." in name}
    outputs = {factor_of(name)[0]: shape[0] for name, shape in shapes.items() if ".lora_B." in name}
    assert {row.name: row.inputs for row in matrices(sizes)} == inputs
    assert {row.name: row.outputs for row in matrices(sizes)} == outputs


@pytest.mark.parametrize("name", KNOWN)
def test_their_weights_add_up(name: str) -> None:
    sizes = KNOWN[name]
    rows = matrices(sizes)
    assert len({row.key for row in rows}) == len(rows)
    for targets in (("q", "v"), LORA_TARGETS):
        trained = sum(row.per_rank for row in rows if row.kind in targets)
        assert 8 * trained == sizes.lora_parameters(8, targets)

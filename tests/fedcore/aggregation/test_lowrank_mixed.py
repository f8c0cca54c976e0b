"""Rules of averaging adapters with what they are joined with: mixed devices, weighings, moments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedcore.aggregation.strategies import build
from fedcore.aggregation.update_files import strategy_factors
from fedcore.aggregation.weighting import UpdateStats
from fedcore.errors import SpecError
from fedcore.spec.options.lowrank import LOW_RANK_RULES
from fedcore.spec.overrides import factor_name
from fedcore.spec.parse import parse_spec
from fedcore.wire.frame import FrameReader
from tests.fedcore.aggregation.lowrank import (
    IN,
    MODULES,
    OUT,
    Server,
    close,
    device_spec,
    job,
    means,
)

REFACTORING = [str(rule) for rule, row in LOW_RANK_RULES.items() if row.refactors]


@pytest.mark.parametrize("rule", REFACTORING)
def test_mixed_ranks_scales_and_modules(rule: str, tmp_path: Path) -> None:
    """Truly different r_i, alpha_i and modules; one module is trained by two of three devices."""
    mixed = {"ranks": "1,3,2", "alphas": "2,24,5", "modules": "q+v,q,q+v"}
    server = Server(tmp_path, job(rule, 6, adapter=mixed))
    scales = {device_spec(server.spec, slot).adapter.scale for slot in range(3)}
    assert scales == {2.0, 8.0, 2.5}
    for number in range(2):
        updates = [(server.delta(slot, 5 * number + slot), 3.0 - slot, slot) for slot in range(3)]
        assert [len(delta) for delta, _, _ in updates] == [4, 2, 4]
        assert updates[1][0][factor_name(MODULES[0], "A")].shape == (3, IN)
        effective = {m: server.effective(m) for m in MODULES}
        expected = means(server, updates)
        report = server.fold(updates)
        assert report.aggregation_error is not None and report.aggregation_error < 1e-6
        for module in MODULES:
            taken_in = effective[module] if rule == "stack" else 0.0
            assert close(server.effective(module), taken_in + expected[module])


def test_truncated_adapter_is_best_of_its_rank(tmp_path: Path) -> None:
    """A device of a low rank starts from the best approximation of that rank, at its own scale."""
    spec = job("flexlora", 6, adapter={"ranks": "2,6,1", "alphas": "1,24,9"})
    server = Server(tmp_path, spec)
    updates = [(server.delta(slot, slot), 1.0, slot) for slot in range(3)]
    expected = means(server, updates)
    report = server.fold(updates)
    tails, sizes = [], []
    for module in MODULES:
        values = torch.linalg.svdvals(expected[module])
        tails.append(float(values[6:].norm()))
        sizes.append(float(values.norm()))
        for slot, rank in enumerate((2, 6, 1)):
            off = float((server.ended(slot, {})[module] - expected[module]).norm())
            assert off == pytest.approx(float(values[rank:].norm()), rel=1e-4)
    tail = torch.tensor(tails).norm() / torch.tensor(sizes).norm()
    assert report.aggregation_error == pytest.approx(float(tail), rel=1e-4)


@pytest.mark.parametrize("rule", REFACTORING)
def test_untrained_module_is_unchanged(rule: str, tmp_path: Path) -> None:
    server = Server(tmp_path, job(rule, adapter={"modules": "q+v,q"}))
    server.fold([(server.delta(slot, slot), 1.0, slot) for slot in range(2)])
    snapshot = server.frame[factor_name(MODULES[1], "B")].clone(), server.effective(MODULES[1])
    server.fold([(server.delta(1, 8), 1.0, 1), (server.delta(0, 9), 0.0, 0)])
    assert torch.equal(server.frame[factor_name(MODULES[1], "B")], snapshot[0])
    assert torch.equal(server.effective(MODULES[1]), snapshot[1])


@pytest.mark.parametrize("rule", ("flexlora", "stack", "fedex"))
@pytest.mark.parametrize(
    ("strategy", "reported"),
    [
        ({"name": "fedavg", "server_learning_rate": 0.4}, {}),
        ({"name": "fedprox", "clip_update_norm": 0.5}, {}),
        ({"name": "fednova"}, {"steps": [4, 1, 2]}),
        ({"name": "qfedavg", "fairness_q": 0.0}, {"loss_before": [1.0, 2.0, 3.0]}),
        ({"name": "qfedavg", "fairness_q": 2.0}, {"loss_before": [1.0, 2.0, 3.0]}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_rate_clipping_reweighting_work_on_products(
    rule: str, strategy: dict[str, Any], reported: dict[str, Any], tmp_path: Path
) -> None:
    """``before + rate * sum p_i f_i (ended_i - before)``, with the factors of the strategy."""
    mixed = {"ranks": "1,1,1"} if rule == "flexlora" else {}
    server = Server(tmp_path, job(rule, adapter=mixed))
    server.fold([(server.delta(slot, slot), 1.0, slot) for slot in range(3)])
    server.spec, server.state = job(rule, adapter=mixed, strategy=strategy), None
    updates = [(server.delta(slot, 20 + slot), 1.0 + slot, slot) for slot in range(3)]
    norms = [float(torch.cat([t.reshape(-1) for t in d.values()]).norm()) for d, _, _ in updates]
    stats = [
        UpdateStats(
            norm, (1 + slot) / 6, reported.get("steps", [0] * 3)[slot],
            reported.get("loss_before", [None] * 3)[slot],
        )
        for slot, norm in enumerate(norms)
    ]  # fmt: skip
    factors = strategy_factors(build(server.spec), stats)
    rate = server.spec.strategy.server_learning_rate
    assert any(factor != 1 for factor in factors) or rate != 1
    effective = {m: server.effective(m) for m in MODULES}
    # A device of a lower rank starts from its cut of what is served.
    starts = [server.ended(slot, {}) for slot in range(3)]
    served = replace(server, spec=job(rule)).ended(9, {})
    expected = {}
    for module in MODULES:
        mean = torch.zeros(OUT, IN, dtype=torch.float64)
        for (delta, weight, slot), factor in zip(updates, factors, strict=True):
            begun = starts[slot][module]
            change = server.ended(slot, delta)[module] - begun
            mean += weight / 6 * (begun + factor * change)
        expected[module] = effective[module] + rate * (mean - served[module])
    server.fold(updates, **reported)
    for module in MODULES:
        result = server.effective(module)
        if rule == "flexlora":  # W may have a higher rank than is served
            u, s, v = torch.linalg.svd(expected[module])
            expected[module] = u[:, :4] * s[:4] @ v[:4]
        assert close(result, expected[module], 1e-4)


@pytest.mark.parametrize("name", ("fedavgm", "fedadam"))
def test_fedex_with_moments_merges_the_residual(name: str, tmp_path: Path) -> None:
    strategy = {"name": name, "server_learning_rate": 0.05}
    one = Server(tmp_path / "fedex", job("fedex", strategy=strategy))
    two = Server(tmp_path / "fedit", job("fedit", strategy=strategy))
    updates = [(one.delta(slot, slot), 1.0 + slot, slot) for slot in range(3)]
    expected = means(one, updates)
    b, a = (
        {m: sum(w / 6 * (one.start(s)[factor_name(m, f)] + d[factor_name(m, f)]).double()
                for d, w, s in updates) for m in MODULES}
        for f in "BA"
    )  # fmt: skip
    report = one.fold(updates)
    two.fold(updates)
    scale = one.spec.adapter.scale
    for module in MODULES:
        residual = expected[module] - scale * b[module] @ a[module]
        assert close(one.effective(module) - two.effective(module), residual)
    assert report.aggregation_error == pytest.approx(0.0, abs=1e-6)


def test_ffa_never_changes_a(tmp_path: Path) -> None:
    server = Server(tmp_path, job("ffa", strategy={"name": "fedadam"}))
    start = {m: server.frame[factor_name(m, "A")].clone() for m in MODULES}
    for number in range(3):
        updates = [(server.delta(slot, number + slot), 1.0 + slot, slot) for slot in range(3)]
        assert all(".lora_B." in name for name in updates[0][0])
        report = server.fold(updates)
        assert report.aggregation_error == 0.0
    for module in MODULES:
        assert torch.equal(server.frame[factor_name(module, "A")], start[module])
        assert server.frame[factor_name(module, "B")].any()
    assert not any(".lora_A." in name for name in FrameReader(server.state or ""))


def test_stack_serves_a_fresh_adapter_each_round(tmp_path: Path) -> None:
    server = Server(tmp_path, job("stack"))
    seen = [server.frame[factor_name(MODULES[0], "A")].clone()]
    ranks = []
    for number in range(4):
        server.fold([(server.delta(slot, 10 * number + slot), 1.0, slot) for slot in range(3)])
        seen.append(server.frame[factor_name(MODULES[0], "A")].clone())
        assert not server.frame[factor_name(MODULES[0], "B")].any()
        ranks.append(server.frame.shapes[factor_name(MODULES[0], "MA")][0])
    assert len({tensor.numpy().tobytes() for tensor in seen}) == 5
    assert ranks == [12, 20, 20, 20], "3 devices of rank 4 each, never more than the smaller side"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"adapter": {"aggregation": "fedit", "ranks": "1,2"}}, "adapter.ranks"),
        ({"adapter": {"aggregation": "fedex", "modules": "q"}}, "adapter.modules"),
        ({"adapter": {"aggregation": "stack"}, "model": {"base": "int8"}}, "model.base"),
        (
            {"adapter": {"aggregation": "flexlora"}, "strategy": {"name": "fedadam"}},
            "strategy.name",
        ),
        ({"adapter": {"aggregation": "stack"}, "strategy": {"name": "scaffold"}}, "strategy.name"),
        ({"adapter": {"aggregation": "fedex"}, "strategy": {"fold": "median"}}, "strategy.fold"),
        ({"adapter": {"aggregation": "fedex"}, "wire": {"downlink": "int8"}}, "wire.downlink"),
        (
            {"adapter": {"aggregation": "flexlora"}, "wire": {"uplink": "int8", "top_k": 0.1}},
            "wire.top_k",
        ),
        (
            {"adapter": {"aggregation": "flexlora"}, "participation": {"mode": "buffered"}},
            "participation.mode",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_incompatible_options_are_refused_with_reason(changes: Any, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(changes)
    assert path in {fault.path for fault in caught.value.faults}

"""One table of laws for every rule of averaging adapters (methods.md, section 1), on files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedcore.aggregation.lowrank.product_fold import RULE_FOLDS
from fedcore.aggregation.update_files import UpdatesRefused
from fedcore.spec.options.lowrank import LOW_RANK_RULES, LowRankRule
from fedcore.spec.overrides import factor_name
from fedcore.wire.frame import FrameReader
from tests.fedcore.aggregation.lowrank import IN, MODULES, OUT, Server, close, job, means

EXACT = ("ffa", "flexlora", "stack", "fedex")  # with ranks enough


def test_the_table_is_complete() -> None:
    assert set(RULE_FOLDS) == set(LowRankRule)


@pytest.fixture(params=list(map(str, LowRankRule)))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    """After a first round, so that B is not zero."""
    made = Server(tmp_path / "all", job(request.param))
    made.fold([(made.delta(slot, slot), 1 + slot, slot) for slot in range(3)])
    return made


class TestEveryRule:
    def test_equal_adapters_serve_their_product(self, server: Server) -> None:
        delta = server.delta(0, 5)
        effective = {m: server.effective(m) for m in MODULES}
        before = {m: server.ended(0, {})[m] for m in MODULES}
        ended = server.ended(0, delta)
        report = server.fold([(delta, 2, 0), (delta, 5, 1), (delta, 1, 2)])
        for module in MODULES:
            expected = effective[module] - before[module] + ended[module]
            assert close(server.effective(module), expected)
        assert report.aggregation_error == pytest.approx(0.0, abs=1e-6)

    def test_zero_deltas_change_nothing(self, server: Server) -> None:
        effective = {m: server.effective(m) for m in MODULES}
        zero = {n: torch.zeros_like(t) for n, t in server.delta(0, 0).items()}
        server.fold([(zero, 2, 0), (zero, 5, 1)])
        server.fold([(zero, 2, 0)])
        assert all(close(server.effective(m), effective[m]) for m in MODULES)

    def test_rule_bits_ignore_arrival_order(self, server: Server, tmp_path: Path) -> None:
        other = Server(tmp_path / "other", server.spec)
        other.fold([(other.delta(slot, slot), 1 + slot, slot) for slot in (2, 0, 1)])
        assert other.path.read_bytes() == server.path.read_bytes()
        updates = [(server.delta(slot, 7 + slot), 1 + slot, slot) for slot in range(3)]
        one, two = server.fold(updates), other.fold(updates[::-1])
        assert one.global_frame == two.global_frame and one.state_frame == two.state_frame

    def test_zero_weight_update_changes_nothing(self, server: Server, tmp_path: Path) -> None:
        updates = [(server.delta(slot, 7 + slot), 1 + slot, slot) for slot in range(2)]
        silent = (server.delta(2, 9), 0, 2)
        snapshot = server.path, server.round, server.state
        server.fold([*updates, silent])
        with_silent = {m: server.effective(m) for m in MODULES}
        _, server.round, server.state = snapshot
        server.fold(updates)
        assert all(close(server.effective(m), with_silent[m]) for m in MODULES)

    def test_non_finite_update_is_refused(self, server: Server) -> None:
        bad = server.delta(1, 3)
        name = sorted(bad)[-1]
        bad[name][0, 0] = torch.nan
        before = sorted(path.name for path in server.folder.iterdir())
        with pytest.raises(UpdatesRefused) as caught:
            server.fold([(server.delta(0, 2), 1, 0), (bad, 1, 1)])
        assert set(caught.value.reasons) == {(1, 0)}
        assert name in caught.value.reasons[1, 0] and "NaN" in caught.value.reasons[1, 0]
        left = {path.name for path in server.folder.iterdir()} - set(before)
        assert left == {"update-1-0", "update-1-1"}, "nothing else is written"

    def test_mis_shaped_update_is_refused(self, server: Server) -> None:
        odd = {n: torch.zeros(3, 3) for n in server.delta(0, 0)}
        with pytest.raises(UpdatesRefused, match="slot 1"):
            server.fold([(server.delta(0, 2), 1, 0), (odd, 1, 1)])

    def test_report_and_served_tensors(self, server: Server) -> None:
        assert dict(server.frame.meta) == dict(FrameReader(server.folder / "global-0").meta)
        report = server.fold([(server.delta(0, 2), 1, 0), (server.delta(1, 3), 3, 1)])
        assert report.weights == {0: 0.25, 1: 0.75}
        sent = torch.cat([t.reshape(-1) for t in server.delta(1, 3).values()])
        assert report.update_norms[1] == pytest.approx(float(sent.norm()), rel=1e-3)
        state = FrameReader(server.state or "")
        assert state.meta["rounds"] == "2" and state.meta["strategy"] == "fedavg"
        shapes = server.frame.shapes
        for module in MODULES:
            assert shapes[factor_name(module, "A")] == (4, IN)
            assert shapes[factor_name(module, "B")] == (OUT, 4)
            assert (factor_name(module, "MA") in shapes) == (
                server.spec.adapter.averaging.merges_into_base
            )


@pytest.mark.parametrize("rule", EXACT)
def test_exact_rules_serve_the_mean_of_products(rule: str, tmp_path: Path) -> None:
    """Ranks are 4 and W's is 12: flexlora gets devices of rank 1 and one of 2."""
    mixed = {"ranks": "1,1,2"} if rule == "flexlora" else {}
    server = Server(tmp_path, job(rule, adapter=mixed))
    for number in range(3):
        updates = [(server.delta(slot, 10 * number + slot), 1.0 + slot, slot) for slot in range(3)]
        expected, effective = means(server, updates), {m: server.effective(m) for m in MODULES}
        adapter = {
            m: server.ended(9, {})[m]
            if LOW_RANK_RULES[LowRankRule(rule)].merges_into_base
            else effective[m]
            for m in MODULES
        }
        report = server.fold(updates)
        assert report.aggregation_error is not None and report.aggregation_error < 1e-6
        for module in MODULES:
            taken_in = effective[module] - adapter[module]
            assert close(server.effective(module), taken_in + expected[module])


def test_fedit_reports_its_aggregation_error(tmp_path: Path) -> None:
    server = Server(tmp_path, job("fedit"))
    updates = [(server.delta(slot, slot), 1.0 + slot, slot) for slot in range(3)]
    expected = means(server, updates)
    report = server.fold(updates)
    off = sum(float((server.effective(m) - expected[m]).square().sum()) for m in MODULES)
    size = sum(float(expected[m].square().sum()) for m in MODULES)
    assert report.aggregation_error == pytest.approx((off / size) ** 0.5, rel=1e-4)
    assert report.aggregation_error > 0.1

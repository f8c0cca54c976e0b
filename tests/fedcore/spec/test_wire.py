"""The group ``wire``: which chains it means, which combinations it refuses, what auto chooses."""

from __future__ import annotations

from typing import Any

import pytest

from fedcore.errors import SpecError
from fedcore.formats.codec_chain import Chain
from fedcore.formats.codec_choice import Transfer, choose
from fedcore.formats.update_header import payload_bytes
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec

MEGABYTE = {"w": (250_000,)}  # 1 MB as fp32


def spec_of(**wire: Any) -> JobSpec:
    return parse_spec({"wire": wire})


REFUSED = [
    ({"top_k": 0.1}, ["wire.top_k"], "name the uplink"),
    (
        {"top_k": 0.1, "uplink": "int8", "error_feedback": False},
        ["wire.error_feedback"],
        "would be lost for good",
    ),
    (
        {"top_k": 0.1, "error_feedback": False},
        ["wire.top_k", "wire.error_feedback"],
        "name the uplink",
    ),
]


@pytest.mark.parametrize(("wire", "paths", "text"), REFUSED)
def test_combinations_that_make_no_sense(wire: dict[str, Any], paths: list[str], text: str) -> None:
    with pytest.raises(SpecError, match=text) as caught:
        spec_of(**wire)
    assert [fault.path for fault in caught.value.faults] == paths


def test_the_chains_of_a_job() -> None:
    assert spec_of().wire.chain is None and spec_of().wire.step_chain is None
    made = spec_of(uplink="int8", top_k=0.05, compress=True, downlink="int4").wire
    assert str(made.chain) == "top_k(0.05)+int8+zstd" and str(made.step_chain) == "int4+zstd"


# Upload of 1 MB at ``bps`` after ``training_s`` of training -> what auto chooses.
AUTO = [
    (20e6, 1.0, "fp32"),  # fast
    (0.6e6, 1.0, "fp32"),  # short: 1.7 s
    (0.11e6, 100.0, "fp32"),  # 9 s, less than a tenth of the training
    (0.09e6, 100.0, "bf16"),  # 11 s against 10
    (0.04e6, 100.0, "int8"),  # bf16: 12.5 s
    (0.02e6, 100.0, "int4"),  # int8: 12.7 s
    (0.001e6, 100.0, "int4"),  # nothing is small enough
    (0.4e6, 1.0, "bf16"),  # 2.5 s against 2
]


@pytest.mark.parametrize(("bps", "training_s", "name"), AUTO)
def test_auto_follows_the_link(bps: float, training_s: float, name: str) -> None:
    former = [Transfer(int(10 * bps), 10.0, training_s)]
    assert choose(MEGABYTE, former) == Chain(name)
    assert choose(MEGABYTE, former, packed=True) == Chain(name, packed=True)


def test_auto_without_a_measured_transfer_is_fp32() -> None:
    assert choose(MEGABYTE, []) == Chain("fp32")
    assert choose(MEGABYTE, [Transfer(0, 3.0, 1.0), Transfer(10, 0.0, 1.0)]) == Chain("fp32")


def test_a_slower_link_never_gets_more_bytes() -> None:
    sizes = [
        payload_bytes(choose(MEGABYTE, [Transfer(bps * 10, 10.0, 60.0)]), MEGABYTE)
        for bps in range(1_000, 400_000, 1_000)
    ]
    assert sizes == sorted(sizes) and len(set(sizes)) == 4

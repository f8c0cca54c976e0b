"""The wire benchmark: its figures add up, and a study goes on where it was broken off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import wire
from benchmarks.__main__ import main
from benchmarks.wire_study import CODECS, CodecRun
from fedcore.formats.codec_chain import parse


@pytest.mark.parametrize("chain", wire.CHAINS)
def test_codec_pass_counts_bytes_and_errors(chain: str) -> None:
    tensor = torch.randn(2000, generator=torch.Generator().manual_seed(1))
    actual = wire._pass(chain, {"a": tensor, "b": tensor[:500]})
    most = sum(parse(chain).payload(size)[1] for size in (2000, 500))
    assert 0 < actual.size <= most
    assert (actual.error == 0) == (chain == "fp32") and actual.error < 1
    assert actual.encode_s > 0 and actual.decode_s > 0


def test_update_has_the_size_of_flan_t5_small() -> None:
    assert sum(wire.SIZES) == 76_961_152


def test_complete_wire_study_only_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Means and deviations over the seeds; differences to fp32 of the same seed."""
    for seed in (1, 2):
        for codec, up, rouge in (("fp32", 8000.0, 20.0 + seed), ("int4", 1000.0, 19.0 + 2 * seed)):
            values = {"up": up, "loss": 1.0 + seed, "rougeL": rouge, "seconds": 1.0}
            (tmp_path / CodecRun("lora", codec, seed).file).write_text(json.dumps(values))
    arguments = ["--study", "--folder", str(tmp_path), "--adapters", "lora", "--seeds", "1", "2"]
    assert main(["wire", *arguments, "--codecs", "fp32", "int4"]) == 0
    text = capsys.readouterr().out
    row = (
        "| int4 | 1.0 | 8.0 x | 22.00 ± 1.41 | 2.5000 ± 0.7071 | +0.50 ± 0.71 | +0.0000 ± 0.0000 |"
    )
    assert row in text


@pytest.mark.parametrize("codec", CODECS)
def test_wire_study_runs_are_valid_jobs(codec: str) -> None:
    for adapter in ("lora", "full"):
        spec = CodecRun(adapter, codec, 3).spec
        assert str(spec.wire.chain) == codec and spec.adapter.kind == adapter
        assert spec.wire.error_feedback and spec.seed == 3

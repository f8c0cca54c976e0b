"""The packaged model whose weights are made where they are needed, the same on every machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fedcore.architecture.sizes import architecture_of
from fedcore.formats.frame_header import sha256_file
from fedcore.model import load, micro
from fedcore.model.load import load_base
from fedcore.train.tokenization import tokenizer_key

# Made with torch 2.13 and numpy 2.4 on x86-64; every machine must find the same.
WEIGHTS_SHA256 = "82992460fcdd501116d2f2037d88ab654c3987894d94e29970e4def9f815475c"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("micro")
    assert micro.write_micro(made) == WEIGHTS_SHA256
    return made


def test_command_writes_equal_bytes_in_another_process(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(77)  # what this process drew before does not matter
    command = [sys.executable, "-m", "fedcore.model.micro", "--out", str(tmp_path / "again")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [WEIGHTS_SHA256]
    assert sha256_file(tmp_path / "again" / "model.safetensors") == WEIGHTS_SHA256


def find_by_name(home: Path) -> subprocess.CompletedProcess[str]:
    """What a process says whose hub folder is ``home``."""
    code = "from fedcore.model.load import resolve; print(resolve('micro').folder)"
    env = {**os.environ, "HF_HOME": str(home)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_micro_is_generated_once_and_found_by_name(tmp_path: Path) -> None:
    folder = Path(find_by_name(tmp_path).stdout.strip())
    assert folder == tmp_path / "edgewise" / f"micro-{micro.VERSION}"
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert find_by_name(tmp_path).stdout.strip() == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert list((tmp_path / "edgewise").iterdir()) == [folder]


def test_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "edgewise").write_text("in the way")
    assert "ModelError: the model micro cannot be kept in" in find_by_name(tmp_path).stderr


def test_micro_is_larger_than_nano_with_its_tokenizer(folder: Path) -> None:
    large, small = (load_base(str(name), torch.float32) for name in (folder, load.NANO))
    sizes = [sum(item.numel() for item in base.model.parameters()) for base in (large, small)]
    assert 2 * sizes[1] < sizes[0] < 3 * sizes[1]
    assert tokenizer_key(large.tokenizer) == tokenizer_key(small.tokenizer)
    assert large.model.config.vocab_size == small.model.config.vocab_size
    assert large.model.config.dropout_rate == small.model.config.dropout_rate
    planned = architecture_of("micro")
    assert planned is not None and planned.parameters() == sizes[0]
    weight = large.model.encoder.block[2].layer[1].DenseReluDense.wo.weight
    assert weight.std().item() == pytest.approx(large.model.config.d_ff**-0.5, rel=0.02)


def test_untrained_micro_can_copy(folder: Path) -> None:
    """Teacher-forced on its own source, many right tokens are likely: the circuit is there."""
    base = load_base(str(folder), torch.float32)
    text = "repeat: Anna bought a red boat and Ben sold the old car near the harbour on Monday."
    ids = base.tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = base.model(input_ids=ids, labels=ids).logits[0]
    ranks = (logits > logits.gather(1, ids[0][:, None])).sum(1)
    assert (ranks[1:-1] < 100).float().mean() > 0.3  # of 3,159 tokens: 0.03 by chance

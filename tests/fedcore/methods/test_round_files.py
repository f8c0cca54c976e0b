"""What a device keeps for itself, round by round: which file a round starts from, which stay."""

from __future__ import annotations

from pathlib import Path

from fedcore.methods.round_files import LATEST_DRAW, RoundFiles


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_repeated_rounds_start_from_the_same_file(tmp_path: Path) -> None:
    files = RoundFiles(tmp_path, "own-model")
    assert files.before((1, 0)) is None and files.newest((9, LATEST_DRAW)) is None
    for key in ((0, 0), (1, 0), (3, 0)):
        files.path(key).write_bytes(b"")
    assert files.before((1, 0)) == files.path((0, 0))
    assert files.before((3, 0)) == files.path((1, 0))  # it sat the second round out
    assert files.before((3, 1)) == files.path((3, 0))  # another piece of the same round
    assert files.newest((2, LATEST_DRAW)) == files.path((1, 0))


def test_newest_two_files_remain(tmp_path: Path) -> None:
    files = RoundFiles(tmp_path, "own-model")
    for key in ((0, 0), (1, 0), (2, 0), (10, 0)):
        files.path(key).write_bytes(b"")
    (tmp_path / "own-model.json").write_bytes(b"")
    (tmp_path / "own-lora-000001-000.safetensors").write_bytes(b"")
    files.keep_only((10, 0))
    assert written(tmp_path) == [
        "own-lora-000001-000.safetensors",
        "own-model-000002-000.safetensors",
        "own-model-000010-000.safetensors",
        "own-model.json",
    ]

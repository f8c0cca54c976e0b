"""A device's private files of a job: one file for each round that writes one.

A repeated round starts from the file before it, so it gives the same bits. The newest file and the
one before it remain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LATEST_DRAW = 10**9

Key = tuple[int, int]  # round, and the draw of training in it


@dataclass(frozen=True)
class RoundFiles:
    """Files ``<stem>-<round>-<draw>.safetensors``; the writer creates the folder."""

    folder: Path
    stem: str

    def path(self, key: Key) -> Path:
        """The path of a key."""
        return self.folder / f"{self.stem}-{key[0]:06d}-{key[1]:03d}.safetensors"

    def newest(self, latest: Key) -> Path | None:
        """The newest file up to ``latest``; None if there is none."""
        paths = [path for key, path in self._all() if key <= latest]
        return paths[-1] if paths else None

    def before(self, key: Key) -> Path | None:
        """The file that training for ``key`` starts from."""
        return self.newest((key[0], key[1] - 1))

    def keep_only(self, key: Key) -> None:
        """Remove all files but that of ``key`` and the one it started from."""
        retained = self.path(key), self.before(key)
        for _, path in self._all():
            if path not in retained:
                path.unlink(missing_ok=True)

    def _all(self) -> list[tuple[Key, Path]]:
        """Keys and their files, oldest first."""
        pattern = re.compile(re.escape(self.stem) + r"-(\d+)-(\d+)\.safetensors")
        paths = self.folder.glob("*.safetensors")
        matches = [(pattern.fullmatch(path.name), path) for path in paths]
        return sorted(((int(m[1]), int(m[2])), path) for m, path in matches if m)

"""Files that a device keeps of a job for itself, one for each round that made one.

A round that is done once more starts from the file before it, so it gives the same bits. Of all
files the newest and the one before it stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LATEST_DRAW = 10**9

Key = tuple[int, int]  # the round a file is of, and the piece of training in it


@dataclass(frozen=True)
class RoundFiles:
    """Files ``<stem>-<round>-<piece>.safetensors`` of a folder; whoever writes one makes it."""

    folder: Path
    stem: str

    def path(self, key: Key) -> Path:
        """Where the file of a piece of training belongs."""
        return self.folder / f"{self.stem}-{key[0]:06d}-{key[1]:03d}.safetensors"

    def newest(self, latest: Key) -> Path | None:
        """The newest file that is no newer than ``latest``; None: there is none."""
        found = [path for key, path in self._all() if key <= latest]
        return found[-1] if found else None

    def before(self, key: Key) -> Path | None:
        """The file that a piece of training starts from."""
        return self.newest((key[0], key[1] - 1))

    def keep_only(self, key: Key) -> None:
        """Remove all but the file of a piece of training, and the one it started from."""
        kept = self.path(key), self.before(key)
        for _, path in self._all():
            if path not in kept:
                path.unlink(missing_ok=True)

    def _all(self) -> list[tuple[Key, Path]]:
        """Keys and their files, the oldest first."""
        pattern = re.compile(re.escape(self.stem) + r"-(\d+)-(\d+)\.safetensors")
        found = [(pattern.fullmatch(path.name), path) for path in self.folder.glob("*.safetensors")]
        return sorted(((int(m[1]), int(m[2])), path) for m, path in found if m)

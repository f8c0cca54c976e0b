"""Print ``name==version`` of every installed distribution that no requirements file pins itself."""

from __future__ import annotations

import re
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Devices may run Python 3.10, where the newest of these do not install.
MARKER = '; python_version >= "3.11"'


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> set[str]:
    """Names that the requirements files pin."""
    lines = [line for path in ROOT.glob("requirements*.txt") for line in path.read_text().split()]
    return {canonical(re.split(r"[\[=]", line)[0]) for line in lines if "==" in line}


def main() -> None:
    skipped = pinned() | {"pip"}
    found = {canonical(item.metadata["Name"]): item.version for item in distributions()}
    for name in sorted(found.keys() - skipped):
        # A local label such as +cpu names one build of a version; every build will do.
        print(f"{name}=={found[name].partition('+')[0]}{MARKER}")


if __name__ == "__main__":
    main()

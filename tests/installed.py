"""A Python in which only some requirements files seem to be installed."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.compose import ROOT

OURS = {"benchmarks", "fedcore", "webapp", "workers"}
# Put before a program: modules of other distributions are not there for it.
HIDE = """
import sys
class Hidden:
    names = set({names!r})
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)
sys.meta_path.insert(0, Hidden())
"""


def distributions_of(*files: str) -> set[str]:
    """The distributions that these requirements files install, with what they need."""
    todo = [line for name in files for line in _requirements(name) if _applies(line, set())]
    done: set[tuple[str, frozenset[str]]] = set()
    while todo:
        line = todo.pop()
        key = (str(canonicalize_name(line.name)), frozenset(line.extras))
        if key in done:
            continue
        done.add(key)
        try:
            needs = requires(line.name) or []
        except PackageNotFoundError:
            continue  # of another platform
        todo += [item for item in map(Requirement, needs) if _applies(item, line.extras)]
    return {name for name, _ in done}


def _requirements(name: str) -> list[Requirement]:
    """The lines of a file and of the files that it includes."""
    lines = (ROOT / name).read_text().splitlines()
    included = [line.removeprefix("-r ") for line in lines if line.startswith("-r ")]
    requirements = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    return requirements + [line for other in included for line in _requirements(other)]


def _applies(line: Requirement, extras: set[str]) -> bool:
    marker = line.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras})


def modules_outside(*files: str) -> set[str]:
    """Installed top-level modules that these requirements files do not install."""
    present = distributions_of(*files) | {"pip", "setuptools"}
    return {
        module
        for module, names in packages_distributions().items()
        if not {str(canonicalize_name(name)) for name in names} & present
    }


def hiding_all_but(*files: str) -> str:
    """Code that hides these modules from the rest of a program."""
    return HIDE.format(names=sorted(modules_outside(*files)))


def third_party_imports(*folders: str) -> set[str]:
    """Top-level modules that files below ``folders``, and all of ours that these import, name."""
    todo = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    done: set[Path] = set()
    modules: set[str] = set()
    while todo:
        path = todo.pop()
        if path in done:
            continue
        done.add(path)
        names = _imported_names(path)
        todo += [file for name in names for file in _files_of(name)]
        modules |= {name.partition(".")[0] for name in names}
    return modules - set(sys.stdlib_module_names) - OURS


def _imported_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _files_of(name: str) -> list[Path]:
    """The files of ours that importing ``name`` runs."""
    parts = name.split(".")
    if parts[0] not in OURS:
        return []
    places = [ROOT.joinpath(*parts[:length]) for length in range(1, len(parts) + 1)]
    files = [file for place in places for file in (place / "__init__.py", place.with_suffix(".py"))]
    return [file for file in files if file.is_file()]

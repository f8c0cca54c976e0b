"""A device may run Python 3.10 (JetPack 6), so its code uses no later standard library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.compose import ROOT

DEVICE_CODE = ("fedcore", "workers/agent")
LATER_NAMES = {
    "enum": {"StrEnum", "ReprEnum", "verify", "nonmember", "member", "global_enum"},
    "typing": {"Self", "LiteralString", "Never", "assert_never", "assert_type", "reveal_type",
               "Required", "NotRequired", "Unpack", "TypeVarTuple", "override"},
    "datetime": {"UTC"},
    "asyncio": {"TaskGroup", "timeout", "Runner", "Barrier"},
    "contextlib": {"chdir"},
    "hashlib": {"file_digest"},
    "itertools": {"batched"},
}  # fmt: skip
LATER_BUILTINS = {"ExceptionGroup", "BaseExceptionGroup"}


def _later_names(tree: ast.Module) -> list[str]:
    modules = {
        (alias.asname or alias.name): alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            later = LATER_NAMES.get(node.module or "", set())
            names += [f"{node.module}.{one.name}" for one in node.names if one.name in later]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id, "")
            if node.attr in LATER_NAMES.get(module, set()):
                names.append(f"{module}.{node.attr}")
        elif isinstance(node, ast.Name) and node.id in LATER_BUILTINS:
            names.append(node.id)
    return names


def _outside_try(tree: ast.Module) -> list[str]:
    """``tomllib`` may be imported where its absence is handled."""
    handled = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        for child in ast.walk(node)
    }
    return [
        "tomllib"
        for node in ast.walk(tree)
        if isinstance(node, ast.Import) and id(node) not in handled
        if any(alias.name == "tomllib" for alias in node.names)
    ]


@pytest.mark.parametrize("folder", DEVICE_CODE)
def test_device_code_runs_on_python_3_10(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert len(paths) > 50
    later: dict[Path, list[str]] = {}
    for path in paths:
        tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 10))
        if names := [*_later_names(tree), *_outside_try(tree)]:
            later[path.relative_to(ROOT)] = names
    assert later == {}

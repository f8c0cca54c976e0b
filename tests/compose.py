"""docker-compose.yml as Docker would read it, for tests that have no Docker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::([-?])([^}]*))?\})")


def services(env: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Every service with its variables filled in. Raises KeyError where a needed one is missing."""
    document = yaml.safe_load(FILE.read_text())
    filled: dict[str, dict[str, Any]] = _filled(document["services"], env)
    return filled


def networks(env: Mapping[str, str]) -> dict[str, Any]:
    """Every network of the file."""
    document = yaml.safe_load(FILE.read_text())
    filled: dict[str, Any] = _filled(document["networks"], env)
    return filled


def variables() -> set[str]:
    """The names that the file takes from .env."""
    return {match[2] for match in VARIABLE.finditer(FILE.read_text()) if match[2]}


def _filled(value: Any, env: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, env) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, env) for item in value]
    return VARIABLE.sub(lambda match: _of(match, env), value) if isinstance(value, str) else value


def _of(match: re.Match[str], env: Mapping[str, str]) -> str:
    if match[1]:
        return "$"
    value = env.get(match[2], "")
    if value or match[3] is None:
        return value
    if match[3] == "?":
        raise KeyError(f"{match[2]}: {match[4]}")
    return match[4]


def command_line(service: Mapping[str, Any]) -> list[str]:
    """What the container runs, word by word; the file writes commands as lists."""
    command = service["command"]
    assert isinstance(command, list), f"write {command!r} as a list"
    return [str(word) for word in command]


def example_env() -> dict[str, str]:
    """.env.example as .env would be."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return dict(pairs)

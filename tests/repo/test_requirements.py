"""Versions: exact, one place for each, and everything that is installed has one."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.compose import ROOT

FILES = (
    "requirements-common.txt", "requirements-device.txt", "requirements-web.txt",
    "requirements.txt", "requirements-study.txt", "requirements-dev.txt",
)  # fmt: skip
# pip installs it with every package of its own kind; which one is pip's affair.
NOT_PINNED = {"pip"}


def _lines(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def pinned_names(name: str) -> set[str]:
    """The distributions that a file names, those of the files that it includes too."""
    included = re.findall(r"^-r (\S+)$", (ROOT / name).read_text(), re.MULTILINE)
    names = {canonicalize_name(line.name) for line in _lines(name)}
    return names.union(*(pinned_names(other) for other in included))


def _holds(marker: Marker | None, extras: set[str]) -> bool:
    if marker is None:
        return True
    return any(marker.evaluate({"extra": extra}) for extra in {"", *extras})


@pytest.mark.parametrize("name", [*FILES, "constraints.txt"])
def test_pins_are_exact(name: str) -> None:
    for line in _lines(name):
        pins = [(part.operator, part.version) for part in line.specifier]
        assert len(pins) == 1 and pins[0][0] == "==" and "*" not in pins[0][1], str(line)


def test_each_version_stands_in_one_place() -> None:
    """Two lines may name a package where their markers exclude each other."""
    seen: dict[tuple[str, str], str] = {}
    for name in (*FILES, "constraints.txt"):
        for line in _lines(name):
            if _holds(line.marker, set()):
                key = (canonicalize_name(line.name), "")
                assert key not in seen, f"{line.name} is pinned in {seen[key]} and in {name}"
                seen[key] = name


def test_whatever_a_pin_needs_is_pinned_too() -> None:
    pinned = {
        canonicalize_name(line.name)
        for name in (*FILES, "constraints.txt")
        for line in _lines(name)
    }
    todo = [line for name in FILES for line in _lines(name) if _holds(line.marker, set())]
    done: set[str] = set()
    while todo:
        line = todo.pop()
        key = f"{canonicalize_name(line.name)}{sorted(line.extras)}"
        if key in done:
            continue
        done.add(key)
        name = canonicalize_name(line.name)
        # CUDA's packages come with builds of torch that pin them exactly.
        assert name in pinned or name in NOT_PINNED or name.startswith(("nvidia-", "cuda-")), (
            f"{name} is pinned nowhere; run `make constraints`"
        )
        try:
            needs = requires(name) or []
        except PackageNotFoundError:
            continue  # of another platform
        todo += [item for item in map(Requirement, needs) if _holds(item.marker, line.extras)]


def test_installed_is_what_is_pinned() -> None:
    from importlib.metadata import version

    for name in FILES[:-1]:
        for line in _lines(name):
            if _holds(line.marker, set()):
                pinned = next(iter(line.specifier)).version
                assert version(line.name).partition("+")[0] == pinned, line.name


def test_no_other_file_names_a_version() -> None:
    for path in (".ci/run", "Makefile", "Dockerfile", ".pre-commit-config.yaml"):
        text = (ROOT / path).read_text()
        assert not re.search(r"[a-z]==\d", text), path


def test_a_device_needs_neither_django_nor_a_database() -> None:
    names = pinned_names("requirements-device.txt")
    assert not {name for name in names if "django" in name or name in ("channels", "psycopg")}


def test_requirements_txt_installs_everything() -> None:
    names = pinned_names("requirements.txt")
    assert names > pinned_names("requirements-device.txt") | pinned_names("requirements-web.txt")

"""The documents match the code: commands, paths, settings, options, names, links."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from fedcore.formats.codec_chain import VALUES
from fedcore.rounds.job_lifecycle import PERSON_MOVES, JobPhase
from fedcore.rounds.types import AssignmentPhase, RoundPhase
from fedcore.spec import job
from fedcore.spec.options.adapter import LORA_TARGETS, AdapterKind
from fedcore.spec.options.lowrank import LowRankRule
from fedcore.spec.options.method import MethodKind
from fedcore.spec.options.participation import MODES
from fedcore.spec.options.strategy import FoldKind, StrategyKind
from fedcore.spec.options.train import KERNELS, SCHEDULES, BasePrecision
from fedcore.spec.reference import document
from fedcore.spec.staleness import DISCOUNTS
from tests.compose import FILE, ROOT, services, variables

README = (ROOT / "README.md").read_text()
DOCS = sorted(page for page in (ROOT / "docs").rglob("*.md") if "studies" not in page.parts)
METHOD_PAGES = sorted((ROOT / "docs" / "reference" / "methods").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
# Read by others than webapp/settings.py, and explained in docs/reference/settings.md all the same.
READ_ELSEWHERE = {
    "EDGEWISE_ADMIN_PASSWORD": "webapp/accounts/management/commands/ensure_admin.py",
    "EDGEWISE_CHROMIUM": "tests/chromium.py",
    "TEST_DATABASE_URL": "tests/stack/test_production.py",
    "TEST_REDIS_URL": "tests/stack/test_production.py",
    "FORWARDED_ALLOW_IPS": "webapp/accounts/checks.py",
    "HF_HOME": "Dockerfile",
    "TMPDIR": "Dockerfile",
}
LIBRARIES = {"HF_HUB_OFFLINE"}


def _tree() -> str:
    """The annotated tree of the README."""
    match = re.search(r"```\n(edgewise/\n.*?)```", README, re.DOTALL)
    assert match is not None
    return match[1]


def _tree_paths() -> list[str]:
    """Every path of the tree, folders with a slash behind them; four columns are one level."""
    paths, parents = [], [""]
    for line in _tree().splitlines()[1:]:
        entry = re.match(r"^(?:│   |    )*(?:├── |└── )(\S+)", line)
        assert entry is not None, line
        depth = entry.start(1) // 4 - 1
        name = entry[1]
        parents = parents[: depth + 1]
        paths.append("".join(parents) + name)
        parents.append(name)
    return paths


def test_every_path_of_the_tree_is_there() -> None:
    paths = _tree_paths()
    assert len(paths) > 20
    for path in paths:
        target = ROOT / path
        assert target.is_dir() if path.endswith("/") else target.is_file(), path


def test_every_folder_is_in_the_tree() -> None:
    """Of what git keeps, on the first level and inside the three layers."""
    listed = set(_tree_paths())
    folders = [ROOT, ROOT / "fedcore", ROOT / "webapp", ROOT / "workers"]
    for folder in folders:
        for child in folder.iterdir():
            shown = child.name in ("docs", "static", "templates", "deploy")
            has_code = shown or (child.is_dir() and any(child.rglob("*.py")))
            name = f"{child.relative_to(ROOT)}/"
            if has_code and not child.name.startswith((".", "_")) and child.name != "var":
                assert name in listed, f"{name} is missing in the tree of README.md"


def test_the_readme_opens_with_the_commands_that_run_it() -> None:
    first = re.search(r"```sh\n(.*?)```", README, re.DOTALL)
    assert first is not None
    lines = first[1].strip().splitlines()
    assert lines[0].startswith("git clone ")
    assert lines[-1] == "make demo"


def _shell_lines(page: Path) -> list[str]:
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", page.read_text(), re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.split(" #")[0].strip() for line in joined.splitlines() if line.strip()]


@pytest.mark.parametrize("doc", PAGES, ids=lambda doc: str(doc.relative_to(ROOT)))
def test_commands_exist(doc: Path) -> None:
    targets = set(re.findall(r"^([a-z -]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {name for group in targets for name in group.split()}
    text = doc.read_text()
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert target in known, f"make {target}"
    for line in _shell_lines(doc):
        for target in re.findall(r"(?:^|&& |; )make ([a-z-]+)", line):
            assert target in known, line
        for module in re.findall(
            r"python[0-9.]* -m ((?:fedcore|webapp|workers|benchmarks|tests)[\w.]*)", line
        ):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), line
        for script in re.findall(r"(?:^|\s)(deploy/[\w.-]+\.(?:sh|py))", line):
            assert (ROOT / script).exists(), line


@pytest.mark.parametrize("doc", PAGES, ids=lambda doc: str(doc.relative_to(ROOT)))
def test_agent_and_simulation_take_the_options_shown(doc: Path) -> None:
    from fedcore.simulate.options import parser as simulation
    from workers.agent.cli import build_parser

    for line in _shell_lines(doc):
        for module, parser in (
            ("workers.agent", build_parser()),
            ("fedcore.simulate", simulation()),
        ):
            if f"-m {module} " in f"{line} ":
                words = shlex.split(line.partition(f"-m {module}")[2])
                known = set(_flags(parser))
                for word in words:
                    if word in ("|", "&&", ";"):
                        break
                    if word.startswith("--"):
                        assert word.partition("=")[0] in known, f"{doc.name}: {line}"


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    flags: list[str] = []
    for action in parser._actions:
        flags += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                flags += _flags(child)
    return flags


@pytest.mark.parametrize("doc", PAGES, ids=lambda doc: str(doc.relative_to(ROOT)))
def test_compose_commands_name_services(doc: Path) -> None:
    known = {"device", *services(dict.fromkeys(variables(), "x"))}
    verbs = r"(?:exec|run --rm|logs -f|restart|up -d|scale)"
    for line in _shell_lines(doc):
        match = re.search(rf"docker compose (?:--profile device )?{verbs} ([^\n]*)", line)
        if match and not match[1].startswith("-"):
            assert shlex.split(match[1])[0] in known, line


@pytest.mark.parametrize("doc", PAGES, ids=lambda doc: str(doc.relative_to(ROOT)))
def test_links_lead_somewhere(doc: Path) -> None:
    for label, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", doc.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (doc.parent / path).resolve() if path else doc
        assert there.exists(), f"{doc.name}: [{label}]({target})"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, f"{doc.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    index += (ROOT / "docs" / "reference" / "methods" / "README.md").read_text()
    for page in DOCS:
        path = page.relative_to(ROOT / "docs")
        names = (f"]({path})", f"]({page.name})")
        assert page.name == "README.md" or any(name in index for name in names), path


def _variables_of_settings() -> set[str]:
    text = (ROOT / "webapp" / "settings.py").read_text()
    return set(re.findall(r'env(?:\.\w+)?\(\s*"([A-Z][A-Z0-9_]+)"', text))


def test_settings_match_their_documentation() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    cells = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
    documented = {name for cell in cells for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", cell)}
    read = _variables_of_settings()
    assert read - documented == set(), "missing in docs/reference/settings.md"
    assert documented - read - READ_ELSEWHERE.keys() - LIBRARIES == set(), "nothing reads these"
    for name, path in READ_ELSEWHERE.items():
        assert name in (ROOT / path).read_text(), f"{path} does not read {name}"


def test_every_variable_of_the_agent_is_documented() -> None:
    from workers.agent.agent_settings import VARIABLES

    page = (ROOT / "docs" / "reference" / "agent.md").read_text()
    assert {name for name in VARIABLES if f"`{name}`" not in page} == set()


def test_the_job_specification_is_what_the_code_declares() -> None:
    written = (ROOT / "docs" / "reference" / "jobspec.md").read_text()
    assert written == document(), "run `make docs`"
    for option in job.options():
        assert f"`{option.path}`" in written


@pytest.mark.parametrize(
    "names",
    [
        tuple(StrategyKind),
        tuple(MethodKind),
        tuple(map(str, FoldKind)),
        tuple(AdapterKind),
        tuple(LowRankRule),
        SCHEDULES,
        KERNELS,
        tuple(BasePrecision),
        LORA_TARGETS,
        MODES,
        tuple(DISCOUNTS),
    ],
    ids=[
        "strategies",
        "methods",
        "folds",
        "adapters",
        "aggregations",
        "schedules",
        "kernels",
        "bases",
        "targets",
        "modes",
        "discounts",
    ],
)
def test_every_method_is_explained(names: tuple[str, ...]) -> None:
    page = "".join(path.read_text() for path in METHOD_PAGES)
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_codec_is_explained() -> None:
    page = (ROOT / "docs" / "reference" / "codecs.md").read_text()
    for name in (*VALUES, "top_k", "zstd"):
        assert re.search(rf"^\| `{name}[`(]", page, re.MULTILINE), f"{name} has no row in codecs.md"


def test_every_catalogue_name_is_documented() -> None:
    from fedcore.catalogue import CATALOGUE

    pages = README + (ROOT / "docs" / "guides" / "datasets.md").read_text()
    reachable = [name for name, entry in CATALOGUE.items() if entry.hub_id]
    assert [name for name in reachable if name not in pages] == []


def test_the_drawn_states_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    drawings = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", page, re.DOTALL)
    drawn = [set(re.findall(r"\b([a-z]+)\b(?= -->|$|:)", text, re.MULTILINE)) for text in drawings]
    synchronous = (RoundPhase.BROADCASTING, RoundPhase.FOLDING)
    buffered = [phase for phase in RoundPhase if phase not in synchronous]
    kinds = (JobPhase, RoundPhase, buffered, AssignmentPhase)
    for states, phases in zip(drawn, kinds, strict=True):
        assert states >= {phase.value for phase in phases}
    for move, (sources, target) in PERSON_MOVES.items():
        for source in sources:
            assert re.search(rf"{source.value} --> {target.value}: {move}", drawings[0])


def test_one_version_everywhere() -> None:
    from workers.agent.agent_settings import VERSION

    project = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "([^"]+)"$', project, re.MULTILINE)
    assert version is not None
    assert version[1] == VERSION
    assert set(re.findall(r"EDGEWISE_VERSION:-([^}]+)}", FILE.read_text())) == {VERSION}
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()

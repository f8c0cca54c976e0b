"""The main job with everything real, and with processes killed under way."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.stack.conftest import EXACT, Running
from tests.stack.simulation import simulated
from workers.stack.stack import SERVER_PARTS

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@pytest.fixture(scope="module")
def killed(running: Running) -> dict[str, Any]:
    """A job during whose first round one agent and its training process are killed."""
    victim = "law-office-pc"
    job = running.site.launch(EXACT)
    running.wait("training on the victim", lambda: running.training(job, victim))
    running.stack.processes.kill(f"agent-{victim}")
    time.sleep(0.5)
    running.stack.start_agent(victim)
    return running.done(job)


def test_job_completes_with_an_agent_killed_in_mid_round(
    running: Running, killed: dict[str, Any]
) -> None:
    rows = running.assignments(killed, task="train")
    lost = [row for row in rows if row["phase"] == "expired"]
    assert [row["device_name"] for row in lost] == ["law-office-pc"]
    assert "restarted" in lost[0]["reason"]
    again = [row for row in rows if row["attempt"] == 2]
    assert [row["phase"] for row in again] == ["folded"]
    assert [(row["number"], row["phase"]) for row in running.rounds(killed)] == [
        (0, "closed"),
        (1, "closed"),
        (2, "closed"),
    ]


def test_simulation_gives_the_same_bits(
    running: Running, killed: dict[str, Any], tmp_path: Path
) -> None:
    simulation = simulated(running, EXACT, tmp_path)
    launched = running.rounds(killed)
    assert [sha for sha, _ in simulation] == [
        row["global_artefact"] or row["base_artefact"] for row in launched
    ]
    losses = [row["evaluation"]["loss"] for row in launched]
    assert [loss for _, loss in simulation] == pytest.approx(losses, rel=1e-6)


def test_losses_agree_whatever_the_threads(
    running: Running, killed: dict[str, Any], tmp_path: Path
) -> None:
    spec = {**EXACT, "rounds": 1, "threads": 2, "deterministic": False}
    losses = [row["evaluation"]["loss"] for row in running.rounds(killed)]
    expected = pytest.approx(losses[:2], rel=0.01)
    assert [loss for _, loss in simulated(running, spec, tmp_path)] == expected


def test_downloaded_adapter_scores_what_was_reported(
    running: Running, killed: dict[str, Any], tmp_path: Path
) -> None:
    """Plain transformers and peft on the downloaded folder: the reported ROUGE-L to 0.1."""
    path = running.site.download(
        f"/jobs/{killed['id']}/download/adapter/", tmp_path / "adapter.zip"
    )
    zipfile.ZipFile(path).extractall(tmp_path / "adapter")
    last = max(row["round"] for row in running.assignments(killed, task="evaluate"))
    rows = running.assignments(killed, task="evaluate", phase="folded", round=last)
    reported = {
        row["device_name"]: row["metrics"]["rougeL"] for row in rows if row["round"] == last
    }
    assert set(reported) == set(running.data)
    name = "clinic-tablet"
    assert _score(tmp_path, running.data[name]) == pytest.approx(reported[name], abs=0.1)


def _score(folder: Path, data: Path) -> float:
    """ROUGE-L of the adapter under ``folder`` on the device's own validation part."""
    from peft import PeftModel
    from rouge_score.rouge_scorer import RougeScorer
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from fedcore.methods.session import Session
    from fedcore.model.load import resolve
    from fedcore.spec.parse import parse_spec
    from fedcore.train.datasets import Source

    spec = parse_spec(EXACT)
    nano = resolve("nano").folder
    adapter = next((folder / "adapter").rglob("adapter_config.json")).parent
    base = AutoModelForSeq2SeqLM.from_pretrained(nano, dtype="float32")
    model = PeftModel.from_pretrained(base, adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(nano)
    prepared = Session(folder / "cache").prepare(spec, Source(str(data), "dialogue", "summary"))
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    texts = {row["summary"]: row["dialogue"] for row in rows}
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    scores = []
    for reference in prepared.references:
        prompt = spec.data.prefix + texts[reference]
        batch = tokenizer(
            prompt, max_length=spec.data.max_source_tokens, truncation=True, return_tensors="pt"
        )
        ids = model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=spec.data.max_target_tokens,
            do_sample=False,
            num_beams=1,
        )
        text = tokenizer.decode(ids[0], skip_special_tokens=True)
        scores.append(scorer.score(reference, text)["rougeL"].fmeasure)
    return 100 * sum(scores) / len(scores)


def test_cancelled_job_stops_its_devices(running: Running) -> None:
    spec = {**EXACT, "train": {**EXACT["train"], "local_steps": 5000}}
    job = running.site.launch(spec)
    running.wait("training", lambda: running.training(job, "clinic-tablet"))
    running.site.post(f"/jobs/{job['id']}/cancel/")
    # Seconds on an idle machine; the training itself would go on for many minutes.
    running.wait("idle devices", lambda: _all_idle(running), 60)


def _all_idle(running: Running) -> bool:
    rows = list(running.site.all_rows("/devices/"))
    return all(row["presence"] == "online" for row in rows)


@pytest.mark.prove
@pytest.mark.parametrize("part", SERVER_PARTS)
def test_killed_server_process_changes_no_bits(
    running: Running, killed: dict[str, Any], part: str
) -> None:
    """The other tests of ``make test`` kill each of them once, in test_failures.py."""
    job = running.site.launch({**EXACT, "rounds": 1, "name": f"without {part}"})
    running.wait("training", lambda: running.training(job, "clinic-tablet"))
    running.stack.processes.kill(part)
    time.sleep(1.0)
    running.stack.start_part(part)
    running.stack.wait_until_up()
    ended = running.done(job)
    undisturbed = running.rounds(killed)[1]["global_artefact"]
    assert running.rounds(ended)[1]["global_artefact"] == undisturbed


def test_merged_model_loads_in_transformers(
    running: Running, killed: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForSeq2SeqLM

    address = f"{running.stack.url}/api/v1/jobs/{killed['id']}/download/merged/"
    running.wait("a merged model", lambda: _ready(running, address), 60)
    path = running.site.download(f"/jobs/{killed['id']}/download/merged/", tmp_path / "model.zip")
    zipfile.ZipFile(path).extractall(tmp_path / "model")
    folder = next((tmp_path / "model").rglob("config.json")).parent
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert not model.lm_head.weight.equal(model.shared.weight), "the output layer was tied"


def _ready(running: Running, address: str) -> bool:
    with running.site._client.stream("GET", address) as response:
        return response.status_code == 200

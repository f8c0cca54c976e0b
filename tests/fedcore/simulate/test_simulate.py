"""The simulation as a library and as a command; and that its bits are those of separate parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedcore.formats.frame_header import sha256_file
from fedcore.methods.session import Session
from fedcore.simulate.__main__ import main
from fedcore.simulate.federation import simulate
from fedcore.simulate.results import RoundResult, SimulationEvent, global_file
from fedcore.train.datasets import Source
from tests.fedcore.conftest import WORDS, sentences, spec_of, write_jsonl

DEVICES = ("kitchen", "attic", "barn")


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Source]:
    return {
        name: Source(str(write_jsonl(tmp_path / f"{name}.jsonl", sentences(seed, 20 + seed))))
        for seed, name in enumerate(DEVICES)
    }


REMOTE = """
import sys
from pathlib import Path
from fedcore.spec.job import JobSpec
from fedcore.methods.session import Session
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source
from fedcore.wire.frame import write_frame
import json
spec, weights, path, number, slot, out = sys.argv[1:]
session = Session(Path(out).parent / f"cache-{slot}")
spec = parse_spec(json.loads(spec))
update = session.train(spec, weights, Source(path), int(number), int(slot))
write_frame(out, update.tensors, {"kind": "update", "elsewhere": "yes"})
print(update.examples)
"""


@pytest.mark.slow
def test_processes_give_the_bits_of_the_simulation(
    tiny: Path, tmp_path: Path, sources: dict[str, Source]
) -> None:
    """Each device trains in a process of its own, as agents do; frames arrive out of order."""
    from fedcore.aggregation.fold_task import NextFiles, ServerFiles
    from fedcore.aggregation.next_model import fold_files
    from fedcore.aggregation.update_files import UpdateFile
    from fedcore.model.initial import write_initial

    spec = spec_of(tiny, strategy={"name": "fedadam"}, rounds=1)
    del sources["barn"]
    results = simulate(spec, sources, tmp_path / "sim")
    first = write_initial(spec, tmp_path / "g0")
    assert first.sha256 == results[0].sha256
    updates = []
    for slot, name in enumerate(sorted(sources)):
        out = tmp_path / f"u{slot}"
        arguments = [json.dumps(spec.to_dict()), str(tmp_path / "g0"), sources[name].path_or_name,
                     "1", str(slot), str(out)]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", REMOTE, *arguments],
            capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "2"},
        )  # fmt: skip
        updates.insert(0, UpdateFile(out, int(done.stdout), slot))
    after = NextFiles(tmp_path / "g1", tmp_path / "s1")
    fold_files(spec, ServerFiles(tmp_path / "g0", None), updates, after)
    assert sha256_file(tmp_path / "g1") == results[1].sha256


def test_simulation_reports_rounds_events_and_files(
    tiny: Path, tmp_path: Path, sources: dict[str, Source]
) -> None:
    spec = spec_of(tiny, participation={"fraction": 0.6})
    events: list[SimulationEvent] = []
    results = simulate(spec, sources, tmp_path / "sim", events.append)
    assert [item.number for item in results] == [0, 1, 2]
    assert results[0].training == {} and results[0].fold is None and results[0].bytes_up == 0
    for item in results:
        assert item.sha256 == sha256_file(global_file(tmp_path / "sim", item.number))
        assert set(item.evaluations) == set(DEVICES)
    assert [len(item.training) for item in results] == [0, 2, 2]
    assert results[1].bytes_down == 2 * global_file(tmp_path / "sim", 0).stat().st_size
    kinds = [event.kind for event in events]
    assert (
        kinds
        == ["evaluated"] * 3 + ["round"] + (["trained"] * 2 + ["evaluated"] * 3 + ["round"]) * 2
    )
    trained = [event.device for event in events if event.kind == "trained"]
    assert trained[:2] == sorted(trained[:2]) and trained[2:] == sorted(trained[2:])
    assert json.loads(json.dumps(results[1].to_dict()))["fold"]["weights"]
    weighted = sum(e.loss * e.examples for e in results[2].evaluations.values()) / sum(
        e.examples for e in results[2].evaluations.values()
    )
    assert results[2].mean["loss"] == pytest.approx(weighted)


def test_evaluation_does_not_change_bits(
    tiny: Path, tmp_path: Path, sources: dict[str, Source]
) -> None:
    always = simulate(spec_of(tiny, rounds=3), sources, tmp_path / "always")
    last = {"every": 0, "initial": False}
    seldom = simulate(spec_of(tiny, rounds=3, evaluation=last), sources, tmp_path / "seldom")
    assert [bool(item.mean) for item in seldom] == [False, False, False, True]
    assert [item.evaluations == {} for item in seldom] == [True, True, True, False]
    assert [item.sha256 for item in seldom] == [item.sha256 for item in always]
    assert seldom[3].mean == always[3].mean


def test_simulation_is_deterministic_by_seed(
    tiny: Path, tmp_path: Path, sources: dict[str, Source]
) -> None:
    def last(folder: str, **changes: object) -> RoundResult:
        return simulate(spec_of(tiny, **changes), sources, tmp_path / folder)[-1]

    one = last("1")
    assert one.sha256 == last("2").sha256
    assert one.sha256 != last("3", seed=4).sha256


def run(tiny: Path, data: Path, *more: str) -> int:
    return main(
        ["--model", str(tiny), "--data", str(data), "--rounds", "2", "--local-steps", "2",
         "--batch-size", "4", "--max-source-tokens", "32", "--max-target-tokens", "12",
         "--max-validation-examples", "3", "--precision", "fp32", "--threads", "1", *more]
    )  # fmt: skip


def test_command_prints_a_table_and_writes_json(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", sentences(1, 48))
    out = tmp_path / "out.json"
    more = ["--partition", "column:domain", "--json", str(out), "--workdir", str(tmp_path / "w")]
    assert run(tiny, data, *more, "--strategy", "fedadam", "--set", "strategy.tau=0.01") == 0
    text = capsys.readouterr().out
    assert text.count("weighted mean") == 3 and "travel" in text and "ROUGE-L" in text
    actual = json.loads(out.read_text())
    assert actual["spec"]["strategy"]["tau"] == 0.01
    assert set(actual["rounds"][2]["evaluations"]) == {"home", "shop", "travel"}
    assert (tmp_path / "w" / "global-2.safetensors").exists()


def test_command_evaluates_every_k_rounds(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", sentences(1, 48))
    assert run(tiny, data, "--evaluate-every", "0", "--set", "evaluation.initial=false") == 0
    text = capsys.readouterr().out
    assert text.count("weighted mean") == 1 and text.count("device-0") == 1


FAULTS = [
    (["--partition", "sorted"], ["unknown partition"]),
    (["--partition", "column:place"], ["no column 'place'; its columns are text, summary, domain"]),
    (["--devices", "40"], ["asks for 8"]),
    (["--rounds", "0", "--rank", "0"], ["rounds: give a whole number", "adapter.rank: give"]),
    (["--set", "train.nonsense=1"], ["train.nonsense: unknown option"]),
    (["--set", "nonsense"], ["give PATH=VALUE"]),
    (["--text-column", "body"], ["no column 'body'"]),
    (["--model", "/none"], ["no folder /none"]),
    (["--spec", "/none.json"], ["cannot read /none.json"]),
]


@pytest.mark.parametrize(("more", "reasons"), FAULTS)
def test_bad_input_prints_one_line_per_fault(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    more: list[str], reasons: list[str],
) -> None:  # fmt: skip
    data = write_jsonl(tmp_path / "rows.jsonl", sentences(1, 48))
    assert run(tiny, data, *more) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    for reason in reasons:
        assert any(reason in line for line in lines), lines


def test_exported_adapter_scores_as_reported(tiny: Path, tmp_path: Path) -> None:
    """Plain transformers and peft, greedy, on the same validation part: the same ROUGE-L."""
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from fedcore.model.export_folder import export_adapter
    from fedcore.train.evaluate import rouge

    spec = spec_of(
        tiny,
        train={"local_steps": 40, "learning_rate": 0.03},
        adapter={"rank": 8, "targets": ["q", "k", "v", "o", "wi_0", "wi_1", "wo"]},
    )
    rows = sentences(1, 24)
    for i, row in enumerate(rows):
        row["summary"] = f"the red car {WORDS[i]}"
    attic = Source(str(write_jsonl(tmp_path / "attic.jsonl", rows)))
    results = simulate(spec, {"attic": attic}, tmp_path / "sim")
    folder = export_adapter(spec, global_file(tmp_path / "sim", 2), tmp_path / "adapter")
    model = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(tiny), folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    prepared = Session(tmp_path / "sim" / "cache").prepare(spec, attic)
    texts = {row["summary"]: row["text"] for row in rows}
    scores = []
    for reference in prepared.references:
        text = spec.data.prefix + texts[reference]
        batch = tokenizer(text, max_length=32, truncation=True, return_tensors="pt")
        ids = model.generate(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask,
            max_new_tokens=12, do_sample=False, num_beams=1,
        )  # fmt: skip
        scores.append(rouge(reference, tokenizer.decode(ids[0], skip_special_tokens=True))[2])
    reported = results[-1].evaluations["attic"].rougeL
    assert reported > 20
    assert sum(scores) / len(scores) == pytest.approx(reported, abs=0.1)

"""The generator of the demo's dialogues."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedcore.dialogues.examples import DOMAINS, HELD_OUT_DOMAINS, DialogueExample, generate


def test_some_domains_are_held_out():
    assert len(DOMAINS) - len(HELD_OUT_DOMAINS) >= 10
    assert {"clinic", "law", "workshop"} <= set(HELD_OUT_DOMAINS) < set(DOMAINS)


@pytest.mark.parametrize("domain", DOMAINS)
def test_text_depends_on_the_arguments_alone(domain):
    first = list(generate(domain, 50, 7))
    assert first == list(generate(domain, 50, 7))
    assert list(generate(domain, 20, 7)) == first[:20]
    others = {one.dialogue for one in generate(domain, 50, 8)}
    assert not others & {one.dialogue for one in first}


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_dialogue_twice(domain):
    drawn = list(generate(domain, 400, 3))
    assert len({one.dialogue for one in drawn}) == len(drawn) == 400
    assert len({one.summary for one in drawn}) > 390


@pytest.mark.parametrize("domain", DOMAINS)
def test_dialogues_have_speakers_and_short_summaries(domain):
    for one in generate(domain, 200, 5):
        speakers = {line.split(": ")[0] for line in one.dialogue.split("\n")}
        assert 2 <= len(speakers) <= 6
        assert 5 <= len(one.summary.split()) <= 26
        assert one.domain == domain
        assert "{" not in one.dialogue + one.summary


@pytest.mark.parametrize("domain", DOMAINS)
def test_summary_words_come_from_the_dialogue(domain):
    drawn = list(generate(domain, 100, 11))
    shares = []
    for one in drawn:
        spoken = {word.strip(".,;:?!").lower() for word in one.dialogue.split()}
        words = [word.strip(".,;:?!").lower() for word in one.summary.split()]
        shares.append(sum(word in spoken for word in words) / len(words))
        assert all(one.summary not in line for line in one.dialogue.split("\n"))
    assert sum(shares) / len(shares) > 0.5


def test_rejected_options_are_not_in_the_summary():
    """Bargaining leaves false days behind; a model that copies any day is wrong often."""
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    tempting = 0
    for one in generate("clinic", 200, 2):
        agreed = one.summary.rsplit(" ", 1)[1].rstrip(".")
        tempting += any(day in one.dialogue for day in days if day != agreed)
        assert agreed in one.dialogue
    assert tempting > 120


def test_held_out_domains_have_their_own_summary_style():
    """Their form appears nowhere else, though the words of it do."""
    usual = [
        one.summary
        for name in DOMAINS
        if name not in HELD_OUT_DOMAINS
        for one in generate(name, 200, 1)
    ]
    for domain, first in (("clinic", "Patient: "), ("law", "Client: "), ("workshop", "Owner: ")):
        assert all(one.summary.startswith(first) for one in generate(domain, 100, 1))
        assert sum(one.startswith(first) for one in usual) < len(usual) / 100


def test_unknown_domain_is_named():
    with pytest.raises(ValueError, match="unknown domain 'opera'"):
        next(generate("opera", 1, 0))


def test_exhausted_domain_is_reported(monkeypatch):
    from fedcore.dialogues import examples as module

    def play(scene):
        scene.say(scene.one(("Ann", "Bob")), "hello")
        return "A greeting."

    monkeypatch.setitem(module._DOMAINS, "tiny", module._Domain(play, held_out=False))
    with pytest.raises(ValueError, match="no 3 different"):
        list(module.generate("tiny", 3, 0))


def test_command_line(tmp_path):
    out = tmp_path / "clinic.jsonl"
    command = [
        sys.executable,
        "-m",
        "fedcore.dialogues",
        "--domain",
        "clinic",
        "--count",
        "12",
        "--seed",
        "7",
        "--out",
        str(out),
    ]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [DialogueExample(**row) for row in rows] == list(generate("clinic", 12, 7))
    assert set(rows[0]) == {"dialogue", "summary", "domain"}


def test_needs_only_the_standard_library():
    code = (
        "import sys, fedcore.dialogues; "
        "print([m for m in ('torch', 'numpy', 'transformers', 'django') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"

"""Rewards: their ranges, known answers, and what happens to one that is no number."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fedcore.errors import ModelError, TrainingError
from fedcore.methods.pfit.reward_table import MEASURES, Scorer, Texts
from fedcore.spec.rewards import (
    REWARDS,
    described,
    extremes,
    fault_of,
    reward_of,
    weighted,
    weights_fault,
)

RANGES = {"overlap": (0, 1), "brevity": (0, 1), "leak": (-1, 0)}
TEXT = st.text(alphabet="abc de.@+1234567890-()", max_size=60)


def make_classifier(folder: Path, labels: tuple[str, ...] = ("bad", "good")) -> Path:
    """A tiny random sequence classifier with the tokenizer of the tiny T5."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from tests.fedcore.conftest import make_tokenizer

    folder.mkdir()
    make_tokenizer(folder)
    names = dict(enumerate(labels))
    config = BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, id2label=names, label2id={name: i for i, name in names.items()},
        num_labels=len(labels),
    )  # fmt: skip
    torch.manual_seed(3)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_reward_tables_have_the_same_names() -> None:
    assert set(MEASURES) == set(REWARDS)


@pytest.mark.parametrize("name", RANGES)
@settings(deadline=None)  # the first call loads the scorer
@given(source=TEXT, reference=TEXT, summary=TEXT)
def test_reward_is_within_its_range(name: str, source: str, reference: str, summary: str) -> None:
    low, high = RANGES[name]
    measure = MEASURES[name]("")
    value = measure(source, reference, summary)
    assert low <= value <= high
    assert value == measure(source, reference, summary)


def test_reward_sum_is_described_with_its_range() -> None:
    words = ["overlap=1", "brevity:0.1=0.5", "leak=2", "classifier:a/b@good=0"]
    assert described(words) == "overlap + 0.5 × brevity:0.1 + 2 × leak"
    assert extremes(words) == (-2, 1.5)
    assert described(["overlap=0"]) == "nothing" and extremes(["overlap=0"]) == (0, 0)
    lows = {name for name, (low, _) in RANGES.items() if low < 0}
    assert lows == {name for name in RANGES if extremes([name])[0] < 0}


def test_overlap_is_rouge_l() -> None:
    """Longest common subsequence of 2 in 3 and 2 words: precision 2/2, recall 2/3, F1 0.8."""
    overlap = MEASURES["overlap"]("")
    assert overlap("", "anna buys paint", "anna paint") == pytest.approx(0.8)
    assert overlap("", "anna", "anna") == 1.0
    assert overlap("", "anna", "") == 0.0


def test_brevity_falls_with_length() -> None:
    source = " ".join(["word"] * 20)
    brevity = MEASURES["brevity"]("0.2")
    values = [brevity(source, "", " ".join(["w"] * n)) for n in (0, 1, 4, 12, 20, 30)]
    assert values == pytest.approx([0.0, 1.0, 1.0, 0.5, 0.0, 0.0])


@pytest.mark.parametrize(
    ("summary", "worth"),
    [
        ("anna meets ben at 10 on 3.5.2024", 0.0),
        ("write to anna.b@example.org", -1 / 3),
        ("call +43 (660) 123-4567 or a@b.at", -2 / 3),
        ("card 4111 1111 1111 1111, a@b.at, c@d.at, e@f.at", -1.0),
        ("order 1234567", -1 / 3),
        ("2 cats, 3 dogs and 45 of them", 0.0),
    ],
)
def test_leak_counts_addresses_and_long_numbers(summary: str, worth: float) -> None:
    assert MEASURES["leak"]("")("", "", summary) == pytest.approx(worth)


def test_classifier_gives_label_probability(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "judge")
    good, bad, last = (MEASURES["classifier"](f"{folder}{end}") for end in ("@good", "@bad", ""))
    value = good("", "", "anna meets ben")
    assert 0 < value < 1
    assert value + bad("", "", "anna meets ben") == pytest.approx(1)
    assert last("", "", "anna meets ben") == value
    with pytest.raises(ModelError, match="its labels are bad, good"):
        MEASURES["classifier"](f"{folder}@kind")("", "", "anna")


def test_single_output_classifier_is_a_sigmoid(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "judge", ("score",))
    config = json.loads((folder / "config.json").read_text())
    assert len(config["id2label"]) == 1
    assert 0 < MEASURES["classifier"](str(folder))("", "", "anna meets ben") < 1


def test_missing_classifier_is_named() -> None:
    with pytest.raises(ModelError, match="/no/such/folder"):
        MEASURES["classifier"]("/no/such/folder")("", "", "anna")


def test_scorer_skips_rewards_of_weight_0() -> None:
    texts = Texts("one two three four five six seven eight nine ten", "one two", "one two")
    assert Scorer(["overlap=2", "brevity:0.2=0.5"])(0, texts) == pytest.approx(2.5)
    assert Scorer(["overlap=0", "classifier:/no/such/folder=0"])(0, texts) == 0.0


def test_infinite_reward_error_hides_the_text(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "judge")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"].fill_(math.nan)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainingError, match=r"reward classifier:.* of example 7 is nan") as error:
        Scorer([f"classifier:{folder}"])(7, Texts("anna meets", "anna meets", "ben paints"))
    assert "anna" not in str(error.value) and "ben" not in str(error.value)


def test_reward_options_round_trip() -> None:
    item = reward_of("classifier:org/model@good=0.5")
    assert (item.name, item.argument, item.weight) == ("classifier", "org/model@good", 0.5)
    assert reward_of("overlap").weight == 1.0
    assert reward_of("brevity:0.2").label == "brevity:0.2"


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("kindness", "choose from overlap"), ("overlap:3", "no argument"),
        ("brevity:2", "share above 0"), ("brevity:nan", "share above 0"),
        ("classifier", "after the colon"), ("classifier:@x", "after the colon"),
        ("overlap=-1", "weight from 0"), ("overlap=nan", "weight from 0"),
        ("overlap=much", "weight from 0"), ("overlap=1", ""), ("brevity:0.1=0", ""),
    ],
)  # fmt: skip
def test_invalid_reward_error_shows_the_syntax(word: str, fault: str) -> None:
    actual = fault_of(word)
    assert fault in actual if fault else not actual


def test_devices_have_own_reward_weights() -> None:
    rewards, weights = ["overlap=1", "brevity:0.2=0.5"], ["1+0", "0+1", "pi=2+3"]
    assert weighted(rewards, weights, 0, "a") == ["overlap=1", "brevity:0.2=0"]
    assert weighted(rewards, weights, 3, "b") == ["overlap=0", "brevity:0.2=1"]
    assert weighted(rewards, weights, 0, "c", "pi") == ["overlap=2", "brevity:0.2=3"]
    assert weighted(rewards, [], 0, "a") == rewards
    assert weights_fault(rewards, "1") and weights_fault(rewards, "pi=1+x")
    assert not weights_fault(rewards, "pi=1+0")

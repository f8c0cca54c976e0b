"""The checkpoint the repository carries, and the code that made it."""

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from fedcore.dialogues.examples import HELD_OUT_DOMAINS, generate
from fedcore.model.pretrain import corpus
from fedcore.model.pretrain.nano import PretrainRecipe, nano_model, train
from fedcore.model.pretrain.score import generate_summaries, rouge

NANO = Path(corpus.__file__).parents[1] / "checkpoints" / "nano"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(NANO)


@pytest.fixture(scope="module")
def loaded():
    return AutoModelForSeq2SeqLM.from_pretrained(
        NANO, dtype=torch.float32, output_loading_info=True
    )


@pytest.fixture(scope="module")
def model(loaded):
    return loaded[0].eval()


def test_folder_is_small():
    assert sum(f.stat().st_size for f in NANO.rglob("*") if f.is_file()) <= 12_000_000


def test_nano_loads_with_untied_head(loaded):
    model, info = loaded
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert (model.lm_head.weight - model.shared.weight).abs().max() > 0.1
    assert model.encoder.embed_tokens.weight is model.shared.weight
    assert not model.config.scale_decoder_outputs
    assert 2e6 < sum(p.numel() for p in model.parameters()) < 4e6


def test_head_stays_untied_when_saved_again(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(again.lm_head.weight, model.lm_head.weight)
    torch.testing.assert_close(again.shared.weight, model.shared.weight)
    assert not again.config.scale_decoder_outputs


def test_nano_has_the_architecture_of_flan_t5():
    config = json.loads((NANO / "config.json").read_text())
    expected = {
        "model_type": "t5",
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    assert {key: config[key] for key in expected} == expected


def test_special_tokens_are_numbered_as_in_t5(tokenizer, model):
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert len(tokenizer) == model.config.vocab_size
    ids = tokenizer.convert_tokens_to_ids([f"<extra_id_{n}>" for n in range(100)])
    assert len(set(ids)) == 100 and 2 not in ids
    assert tokenizer("hello")["input_ids"][-1] == 1


@pytest.mark.parametrize(
    "text",
    [
        "Anna: it's 10:30 — “naïve”, isn't it?",
        "漢字 😀 Ώ ß tabs; <b>&amp;</b> C:\\path {x}[0] ~`^|",
        "libfoo-dev 1.2.3+dfsg-4~bpo12+1 (>= 2.0), Größe €12,50",
        "Thank you <extra_id_0> me to your party <extra_id_1> week.",
        "\u0000\u0007 control, \U0001f469\u200d\U0001f52c joined",
        "",
    ],
)
def test_tokenizer_round_trips_any_text(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert 2 not in ids
    assert tokenizer.decode(ids[:-1]) == text


def test_white_space_becomes_one_space(tokenizer):
    ids = tokenizer("A: yes.\nB:\t no.")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "A: yes. B: no."


def test_name_tokens_do_not_depend_on_position(tokenizer):
    def tokens(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    for name in ("Maria", "Kouheto", "Strellobin"):
        alone = tokens(name)
        for text in (f"{name}: hello", f"so {name}, you", f"I am\n{name}: hi"):
            assert ",".join(map(str, alone)) in ",".join(map(str, tokens(text)))


def test_held_out_domains_are_not_in_the_corpus():
    assert not set(HELD_OUT_DOMAINS) & set(corpus.SEEN_DOMAINS)
    drawn = corpus.dialogues(40, 5)
    assert {one.domain for one in drawn} == set(corpus.SEEN_DOMAINS)
    text = " ".join(f"{one.dialogue} {one.summary}" for one in corpus.dialogues(400, 6)).lower()
    for phrase in (
        "follow-up",
        "symptoms",
        "attorney",
        "lawsuit",
        "garage",
        "workshop",
        "brought you to",
        "brings you to",
        "counsel",
        "roadworthy",
        "inspected",
        "parts and labour",
        "back pain",
        "dry cough",
        "oil leak",
        "brake pads",
    ):
        assert phrase not in text


def test_corrupted_spans_are_reversible():
    rng = random.Random(1)
    for example in generate("travel", 30, 1):
        source, target = corpus.corrupt_spans(example.dialogue, rng)
        pieces = target.split("<extra_id_")[1:]
        for piece in pieces[:-1]:
            number, _, words = piece.partition("> ")
            source = source.replace(f"<extra_id_{number}>", words.strip(), 1)
        assert source == " ".join(example.dialogue.split())


def test_batches_resume_where_they_stopped(tokenizer):
    stream = corpus.batches(tokenizer, 3, 16, 0)
    whole = [next(stream) for _ in range(55)]
    later = corpus.batches(tokenizer, 3, 16, 50)
    for step in range(50, 55):
        assert torch.equal(next(later).input_ids, whole[step].input_ids)


def test_training_is_deterministic_and_resumes_exactly(tokenizer, tmp_path, monkeypatch):
    from fedcore.model.pretrain import nano

    def weights(state, *stops):
        for stop in stops:
            model = nano_model(len(tokenizer), 0)
            recipe = PretrainRecipe(steps=4, batch=2)
            monkeypatch.setattr(nano, "_SAVE_EVERY", stop)
            train(model, tokenizer, recipe, tmp_path / state, lambda line: None)
        return model.state_dict()

    straight = weights("straight", 100)
    assert not (tmp_path / "straight").exists()
    weights("checkpoint", 3)
    assert torch.load(tmp_path / "checkpoint", weights_only=True)["step"] == 3
    resumed = weights("checkpoint", 100)
    for name, tensor in straight.items():
        assert torch.equal(tensor, resumed[name]), name


def test_nano_summarizes_training_domains(model, tokenizer):
    examples = [next(generate(domain, 1, corpus.VALIDATION_SEED)) for domain in corpus.SEEN_DOMAINS]
    assert rouge(model, tokenizer, examples[:8])["rougeL"] > 60
    assert len(set(generate_summaries(model, tokenizer, examples[:4]))) == 4


def test_nano_is_weaker_on_held_out_domains(model, tokenizer):
    examples = [
        one for domain in HELD_OUT_DOMAINS for one in generate(domain, 4, corpus.VALIDATION_SEED)
    ]
    assert 3 < rouge(model, tokenizer, examples)["rougeL"] < 55

"""The job specification: what it takes, and what it says of what it does not take."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedcore.errors import EdgewiseError, Fault, SpecError
from fedcore.spec.job import JobSpec, options
from fedcore.spec.options.method import OF_METHOD
from fedcore.spec.parse import load_spec, parse_spec
from tests.fedcore.spec.combinations import COMBINATIONS, METHOD_COMBINATIONS, STRANGERS
from tests.fedcore.spec.options import HUGE, OPTIONS

EVERY_COMBINATION = COMBINATIONS + METHOD_COMBINATIONS + STRANGERS


def nested(path: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for "a.b"."""
    *outer, last = path.split(".")
    values = {last: value}
    for name in reversed(outer):
        values = {name: values}
    return values


# What a job needs beside the method's name, of methods that are not at home beside the defaults.
BESIDE: dict[str, dict[str, Any]] = {
    "pftt": {"adapter": {"kind": "bottleneck"}},
    "fedpipe": {"adapter": {"aggregation": "flexlora"}},
}


def with_its_method(path: str, value: Any) -> dict[str, Any]:
    """The option with the method that alone reads it, where there is one."""
    values = nested(path, value)
    if method := OF_METHOD.get(path):
        values["method"] = {**values.get("method", {}), "name": method}
        values |= BESIDE.get(method, {})
    return values


def look_up(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values


def faults_of(values: Any) -> dict[str, str]:
    """What is wrong, by path."""
    with pytest.raises(SpecError) as caught:
        parse_spec(values)
    return {fault.path: fault.message for fault in caught.value.faults}


# For every option: values it takes, and values it refuses, each with a part of the fault's text.


def test_every_option_is_in_the_table() -> None:
    assert list(OPTIONS) == [item.path for item in options()]


@pytest.mark.parametrize("path", OPTIONS)
def test_an_option_takes_what_it_should(path: str) -> None:
    for value in OPTIONS[path][0]:
        spec = parse_spec(with_its_method(path, value))
        assert look_up(spec.to_dict(), path) == value


@pytest.mark.parametrize("path", OPTIONS)
def test_an_option_refuses_the_rest_and_says_why(path: str) -> None:
    for value, text in OPTIONS[path][1]:
        faults = faults_of(nested(path, value))
        assert list(faults) == [path], (value, faults)
        assert text in faults[path], (value, faults)
        assert len(faults[path]) < 400, "a fault shows what is wrong, not all of it"


def test_the_defaults_are_a_specification() -> None:
    spec = parse_spec({})
    assert spec == JobSpec()
    assert parse_spec(spec.to_dict()) == spec
    assert parse_spec(json.loads(json.dumps(spec.to_dict()))) == spec


def test_types_are_those_of_the_declaration() -> None:
    spec = parse_spec({"rounds": 3.0, "adapter": {"alpha": 4, "targets": ["q"]}})
    assert type(spec.rounds) is int
    assert type(spec.adapter.alpha) is float
    assert spec.adapter.targets == ("q",)
    assert hash(spec) == hash(parse_spec(spec.to_dict()))
    with pytest.raises(FrozenInstanceError):
        spec.rounds = 4  # type: ignore[misc]


def test_all_faults_come_at_once() -> None:
    faults = faults_of(
        {
            "name": "",
            "runds": 3,
            "seed": -1,
            "model": {"name": 5, "size": "base"},
            "adapter": "lora",
            "data": {"max_source_tokens": "long"},
            "train": {"precision": "fp16", "learning_rate": math.nan},
            "participation": {"devices": ["a", "a"], "quorum": 0, "qourum": 1},
        }
    )
    assert set(faults) == {
        "name",
        "runds",
        "seed",
        "model.name",
        "model.size",
        "adapter",
        "data.max_source_tokens",
        "train.precision",
        "train.learning_rate",
        "participation.devices",
        "participation.quorum",
        "participation.qourum",
    }
    assert faults["runds"] == "unknown option; did you mean 'rounds'?"
    assert "did you mean 'quorum'?" in faults["participation.qourum"]
    assert faults["model.size"] == "unknown option; known: name, base"


def test_the_error_reads_like_a_list_of_things_to_do() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({"rounds": 0, "seed": "x"})
    error = caught.value
    assert isinstance(error, EdgewiseError)
    assert not error.retryable
    assert str(error) == (
        "rounds: give a whole number from 1 to 10000, not 0; seed: give a whole number, not 'x'"
    )
    assert str(Fault("", "give an object")) == "give an object"


@pytest.mark.parametrize("values", [None, 3, "spec", [], [{}], True, 1.5])
def test_a_specification_is_an_object(values: Any) -> None:
    assert "give an object" in faults_of(values)[""]


@pytest.mark.parametrize("part", ["model", "adapter", "data", "train", "strategy", "participation"])
@pytest.mark.parametrize("value", [None, 3, "x", [], [1, 2]])
def test_a_part_is_an_object(part: str, value: Any) -> None:
    assert faults_of({part: value}) == {part: f"give an object with options, not {value!r}"}


@pytest.mark.parametrize(("values", "path", "text"), EVERY_COMBINATION)
def test_combinations_that_make_no_sense(values: dict[str, Any], path: str, text: str) -> None:
    faults = faults_of(values)
    assert list(faults) == [path]
    assert text in faults[path]


def test_every_option_of_one_method_is_refused_beside_another() -> None:
    assert [path for _, path, _ in STRANGERS] == list(OF_METHOD)
    every = {info.path for info in options()}
    assert set(OF_METHOD) <= every
    assert every - set(OF_METHOD) >= {"method.name", "adapter.rank"}


@pytest.mark.parametrize(("values", "path", "text"), EVERY_COMBINATION)
def test_stored_spec_loads_despite_later_rules(
    values: dict[str, Any], path: str, text: str
) -> None:
    del path, text
    spec = load_spec(values)
    assert load_spec(spec.to_dict()) == spec


def test_what_was_accepted_once_has_types_and_ranges() -> None:
    with pytest.raises(SpecError, match=r"rounds: .*; runds: |runds: .*; rounds: "):
        load_spec({"rounds": 0, "runds": 3})


def test_combinations_come_together() -> None:
    values: dict[str, Any] = {}
    for item, _, _ in COMBINATIONS:
        for part, inner in item.items():
            values[part] = values.get(part, {}) | inner
    assert set(faults_of(values)) == {path for _, path, _ in COMBINATIONS}


def test_combinations_at_their_edge_are_fine() -> None:
    parse_spec({"train": {"local_steps": 5, "warmup_steps": 5}})
    parse_spec({"train": {"local_steps": 0, "warmup_steps": 500}})
    parse_spec({"train": {"micro_tokens": 576}})
    parse_spec({"adapter": {"kind": "full"}, "model": {"base": "auto"}})
    parse_spec({"participation": {"devices": ["a", "b"], "minimum": 2}})
    parse_spec({"participation": {"deadline_s": 60, "lease_s": 60}})
    parse_spec({"participation": {"deadline_quantile": 0.5, "quorum": 0.5}})
    parse_spec({"participation": {"tiers": 4, "fraction": 0.25}})
    parse_spec({"participation": {"mode": "synchronous", "buffer_size": 99}})
    parse_spec({"participation": {"mode": "buffered", "devices": ["a", "b"], "buffer_size": 2}})


def test_every_option_has_words_for_a_form() -> None:
    for item in options():
        assert item.label, item.path
        assert item.label[0].isupper(), item.path
        if item.choices is not None and isinstance(item.default, str):
            assert item.default in item.choices


def test_a_fault_does_not_repeat_a_flood() -> None:
    """What a person reads, a log keeps and a page shows stays short, whatever came in."""
    floods = {
        "name": ["x" * 10_000] * 100,
        "model": ["y" * 100_000],
        "seed": "9" * 100_000,
        "rounds": 10**3000,
        "adapter": {"targets": ["z" * 100_000], "kind": "k" * 100_000},
        "z" * 100_000: 1,
    }
    faults = faults_of(floods)
    assert len(faults) == len(floods) + 1
    assert all(len(path) < 400 and len(text) < 400 for path, text in faults.items())


KEYS = st.sampled_from(
    [part for path in OPTIONS for part in path.split(".")] + ["", "x", "rnds", "devices "]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from([HUGE, -HUGE, "lora", "nano", "fedavg", ["q", "q"], "\x00", "\ud800"]),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(KEYS, JSON, max_size=6) | JSON)
def test_arbitrary_json_is_a_specification_or_a_spec_error(values: Any) -> None:
    try:
        spec = parse_spec(values)
    except SpecError as error:
        assert error.faults
        assert all(fault.message for fault in error.faults)
        assert len({fault.path for fault in error.faults}) == len(error.faults)
    else:
        assert parse_spec(spec.to_dict()) == spec


VALID = st.fixed_dictionaries(
    {}, optional={path: st.sampled_from(good) for path, (good, _) in OPTIONS.items()}
)


@settings(max_examples=100, deadline=None)
@given(VALID)
def test_valid_options_combine_and_round_trip(options: dict[str, Any]) -> None:
    values: dict[str, Any] = {}
    for path, value in options.items():
        inner = nested(path, value)
        key = path.split(".")[0]
        values[key] = values.get(key, {}) | inner[key] if "." in path else value
    try:
        spec = parse_spec(values)
    except SpecError as error:  # only the combinations may be wrong
        paths = {fault.path for fault in error.faults}
        assert paths <= {path for _, path, _ in EVERY_COMBINATION}
    else:
        for path, value in options.items():
            assert look_up(spec.to_dict(), path) == value
        assert parse_spec(spec.to_dict()) == spec


def test_every_option_is_explained_by_a_sentence() -> None:
    wrong = [i.path for i in options() if not (i.help.endswith(".") and len(i.help.split()) > 2)]
    assert wrong == []

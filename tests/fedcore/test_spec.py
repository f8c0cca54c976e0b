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
from fedcore.spec import JobSpec, options
from fedcore.spec_method import OF_METHOD
from tests.fedcore.spec_combinations import COMBINATIONS, METHOD_COMBINATIONS, STRANGERS

HUGE = 10**400
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
        JobSpec.from_dict(values)
    return {fault.path: fault.message for fault in caught.value.faults}


# For every option: values it takes, and values it refuses, each with a part of the fault's text.
TEXT = [(5, "give text"), (None, "give text"), (["a"], "give text"), ("a\x00b", "control"),
        ("a\nb", "control"), ("\ud800", "control")]  # fmt: skip
WHOLE = [(True, "whole number"), ("3", "whole number"), (None, "whole number"),
         (3.5, "whole number"), (math.nan, "whole number"), (math.inf, "whole number"),
         (HUGE, "from"), (-HUGE, "from"), ([1], "whole number"), ({}, "whole number")]  # fmt: skip
REAL = [(True, "give a number"), ("0.5", "give a number"), (None, "give a number"),
        (math.nan, "give a number"), (math.inf, "give a number"), (-math.inf, "give a number"),
        (HUGE, "give a number"), (-HUGE, "give a number"), ([0.5], "give a number")]  # fmt: skip
NAMES = [("pi", "list of names"), ([1], "list of names"), (None, "list of names"),
         ({"a": 1}, "list of names")]  # fmt: skip
CHOICE = [("", "choose one of"), (7, "choose one of"), (None, "choose one of"),
          (["lora"], "choose one of"), ({}, "choose one of")]  # fmt: skip

WORDS = [(True, "a list"), (3, "a list"), ([[]], "a list"), (["x" * 201], "1 to 200")]
OPTIONS: dict[str, tuple[list[Any], list[tuple[Any, str]]]] = {
    "name": (["x", "x" * 120, "été 夏"], [*TEXT, ("", "1 to 120"), ("x" * 121, "not 121")]),
    "model.name": (["nano", "/models/t5"], [*TEXT, ("", "1 to 300"), ("x" * 301, "not 301")]),
    "model.base": (["auto", "fp32", "bf16", "int8", "nf4"], [*CHOICE, ("int4", "nf4")]),
    "adapter.kind": (
        ["lora", "bottleneck", "layers", "full"],
        [*CHOICE, ("lore", "lora, bottleneck, layers, full")],
    ),
    "adapter.width": ([1, 4096], [*WHOLE, (0, "from 1"), (4097, "to 4096")]),
    "adapter.last_layers": ([1], [*WHOLE, (0, "from 1"), (1001, "to 1000")]),
    "adapter.rank": ([1, 192, 8.0], [*WHOLE, (0, "1 to 1024"), (1025, "1 to 1024")]),
    "adapter.alpha": ([0.1, 1e4, 16], [*REAL, (0, "above 0"), (10_001, "to 10000")]),
    "adapter.dropout": ([0, 0.9], [*REAL, (-0.1, "from 0"), (0.91, "to 0.9")]),
    "adapter.targets": (
        [["q"], ["q", "k", "v", "o", "wi_0", "wi_1", "wo"]],
        [*NAMES, ([], "at least one"), (["q", "q"], "twice"), (["x"], "unknown x")],
    ),
    "adapter.aggregation": (
        ["fedit", "ffa", "fedex", "flexlora", "stack"],
        [*CHOICE, ("flora", "fedit")],
    ),
    "adapter.ranks": ([[]], WORDS),
    "adapter.alphas": ([[]], WORDS),
    "adapter.modules": ([[]], WORDS),
    "adapter.pattern": ([[], ["encoder.block.0.layer.0.SelfAttention.q=4"]], WORDS),
    "data.dataset": (["", "law"], [*TEXT, ("x" * 101, "not 101")]),
    "data.prefix": (["", "summarize: "], [*TEXT, ("x" * 201, "not 201")]),
    "data.max_source_tokens": ([8, 8192], [*WHOLE, (7, "from 8"), (8193, "to 8192")]),
    "data.max_target_tokens": ([4, 1024], [*WHOLE, (3, "from 4"), (1025, "to 1024")]),
    "data.validation_fraction": ([0.01, 0.9], [*REAL, (0, "above 0"), (0.95, "to 0.9")]),
    "data.max_validation_examples": ([1, 100_000], [*WHOLE, (0, "from 1"), (100_001, "to")]),
    "data.min_examples": ([2, 10_000_000], [*WHOLE, (1, "from 2"), (10_000_001, "to")]),
    "train.local_steps": ([0, 1_000_000], [*WHOLE, (-1, "from 0"), (1_000_001, "to")]),
    "train.local_epochs": ([1, 1000], [*WHOLE, (0, "from 1"), (1001, "to 1000")]),
    "train.batch_size": ([1, 4096], [*WHOLE, (0, "from 1"), (4097, "to 4096")]),
    "train.accumulation": ([1, 1024], [*WHOLE, (0, "from 1"), (1025, "to 1024")]),
    "train.optimizer": (["adamw", "sgd"], [*CHOICE, ("adam", "adamw, sgd")]),
    "train.learning_rate": ([1e-6, 10], [*REAL, (0, "above 0"), (11, "to 10")]),
    "train.schedule": (["constant", "linear", "cosine"], [*CHOICE, ("step", "constant")]),
    "train.warmup_steps": ([0, 1_000_000], [*WHOLE, (-1, "from 0"), (1_000_001, "to")]),
    "train.weight_decay": ([0, 1], [*REAL, (-0.1, "from 0"), (1.1, "to 1")]),
    "train.clip_norm": ([0, 1e6], [*REAL, (-1, "from 0"), (2e6, "to 1e+06")]),
    "train.precision": (["auto", "fp32", "bf16"], [*CHOICE, ("fp16", "auto, fp32, bf16")]),
    "train.dropout": ([-1, 0, 0.9], [*REAL, (-1.1, "from -1"), (0.95, "to 0.9")]),
    "train.kernels": (["fast", "plain"], [*CHOICE, ("slow", "fast, plain")]),
    "train.batching": (["random", "length"], [*CHOICE, ("sorted", "random, length")]),
    "train.micro_tokens": (
        [0, 1024, 1_000_000],
        [*WHOLE, (-1, "from 0"), (1_000_001, "to 1000000")],
    ),
    "train.checkpointing": ([True, False], [(1, "true or false"), ("yes", "true or false")]),
    "train.micro_batch": ([0, 4096], [*WHOLE, (-1, "from 0"), (4097, "to 4096")]),
    "strategy.name": (["fedavg", "fedprox", "fedadam"], [*CHOICE, ("fedsgd", "fedavg")]),
    "strategy.fold": (["median", "trimmed_mean"], [("krum", "choose one of mean"), (1, "one of")]),
    "strategy.trim": ([0.0, 0.49], [(0.5, "from 0 to 0.49"), (-0.1, "from 0"), ("x", "a number")]),
    "strategy.server_learning_rate": ([0.1, 100], [*REAL, (0, "above 0"), (101, "to 100")]),
    "strategy.beta1": ([0, 0.9999], [*REAL, (-0.1, "from 0"), (1, "to 0.9999")]),
    "strategy.beta2": ([0, 0.99999], [*REAL, (-0.1, "from 0"), (1, "to 0.99999")]),
    "strategy.tau": ([1e-9, 1], [*REAL, (0, "above 0"), (1.1, "to 1")]),
    "strategy.server_weight_decay": ([0, 1], [*REAL, (-0.1, "from 0"), (1.1, "to 1")]),
    "strategy.proximal_mu": ([0, 1e4], [*REAL, (-1, "from 0"), (10_001, "to 10000")]),
    "strategy.fairness_q": ([0, 100], [*REAL, (-0.1, "from 0"), (101, "to 100")]),
    "strategy.clip_update_norm": ([0, 1e9], [*REAL, (-1, "from 0"), (2e9, "to 1e+09")]),
    "method.name": (["none", "fedjudge"], [*CHOICE, ("some", "choose one of none")]),
    "method.restraint": ([0, 1, 1e4], [*REAL, (-1, "from 0"), (10_001, "to 10000")]),
    "method.own_rank": ([1, 1024], [*WHOLE, (0, "from 1"), (1025, "to 1024")]),
    "method.own_ranks": ([[], ["4", "8"], ["pi=1024"]], WORDS),
    "method.own_targets": ([["q", "v"]], [*NAMES, (["x"], "unknown x"), ([], "at least one")]),
    "method.own_scale": ([2], [*REAL, (0, "above 0"), (10_001, "to 10000")]),
    "method.memory_budget_mb": ([0, 1e9], [*REAL, (-1, "from 0"), (2e9, "to 1e+09")]),
    "method.time_budget_s": ([0, 1e8], [*REAL, (-1, "from 0"), (2e8, "to 1e+08")]),
    "method.rewards": ([["overlap=1"], ["leak=2", "brevity:0.1=1"]], WORDS),
    "method.weights": ([[], ["2"], ["pi=0.5"]], WORDS),
    "method.samples": ([1, 64], [*WHOLE, (0, "from 1"), (65, "to 64")]),
    "method.temperature": ([0.1, 10], [*REAL, (0, "above 0"), (11, "to 10")]),
    "method.passes": ([1, 100], [*WHOLE, (0, "from 1"), (101, "to 100")]),
    "method.clip": ([0.1, 1], [*REAL, (0, "above 0"), (1.1, "to 1")]),
    "method.anchor": ([0, 1e4], [*REAL, (-0.1, "from 0"), (10_001, "to 10000")]),
    "method.baseline": (["value", "group"], [*CHOICE, ("none", "value, group")]),
    "method.distance": ([0, 1e6], [*REAL, (-0.1, "from 0"), (2e6, "to 1e+06")]),
    "method.window": ([0, 8192], [*WHOLE, (-1, "from 0"), (8193, "to 8192")]),
    "method.supervised_steps": ([0, 1_000_000], [*WHOLE, (-1, "from 0"), (1_000_001, "to")]),
    "distill.models": ([["micro"], ["a/b", "c"]], WORDS),
    "distill.children": ([0, 10_000], [*WHOLE, (-1, "from 0"), (10_001, "to 10000")]),
    "distill.bridge": (["dialogues", "x" * 300], [*TEXT, ("", "1 to 300"), ("x" * 301, "not 301")]),
    "distill.samples": ([2, 1_000_000], [*WHOLE, (1, "from 2"), (1_000_001, "to 1000000")]),
    "distill.gamma": ([0, 1e4], [*REAL, (-0.1, "from 0"), (10_001, "to 10000")]),
    "distill.beta": ([0, 1e4], [*REAL, (-0.1, "from 0"), (10_001, "to 10000")]),
    "distill.temperature": ([0.1, 100], [*REAL, (0, "above 0"), (101, "to 100")]),
    "distill.top_k": ([1, 1_000_000], [*WHOLE, (0, "from 1"), (1_000_001, "to 1000000")]),
    "distill.parents_train": (["full", "lora"], [*CHOICE, ("none", "full, lora")]),
    "distill.parent_learning_rate": ([1e-5, 10], [*REAL, (0, "above 0"), (11, "to 10")]),
    "distill.parent_steps": ([0, 1_000_000], [*WHOLE, (-1, "from 0"), (1_000_001, "to 1000000")]),
    "participation.mode": (["synchronous", "buffered"], [*CHOICE, ("async", "buffered")]),
    "participation.devices": (
        [[], ["pi-kitchen"], ["été"]],
        [*NAMES, (["a", "a"], "twice"), ([""], "1 to 100"), (["x" * 101], "1 to 100"),
         (["a\x00"], "control"), (["\udfff"], "control")],
    ),
    "participation.fraction": ([0.01, 1], [*REAL, (0, "above 0"), (1.1, "to 1")]),
    "participation.minimum": ([1, 1_000_000], [*WHOLE, (0, "from 1"), (1_000_001, "to")]),
    "participation.over_selection": ([0, 1], [*REAL, (-0.1, "from 0"), (1.1, "to 1")]),
    "participation.quorum": ([0.01, 1], [*REAL, (0, "above 0"), (1.1, "to 1")]),
    "participation.deadline_s": ([60, 604_800], [*REAL, (4.9, "from 5"), (604_801, "to 604800")]),
    "participation.deadline_quantile": ([0, 0.5, 1], [*REAL, (-0.1, "from 0"), (1.1, "to 1")]),
    "participation.deadline_slack": ([1, 100], [*REAL, (0.9, "from 1"), (101, "to 100")]),
    "participation.tiers": ([1], [*WHOLE, (0, "from 1"), (101, "to 100")]),
    "participation.lease_s": ([3, 1800], [*REAL, (2.9, "from 3"), (86_401, "to 86400")]),
    "participation.max_attempts": ([1, 100], [*WHOLE, (0, "from 1"), (101, "to 100")]),
    "participation.buffer_size": ([1, 100_000], [*WHOLE, (0, "from 1"), (100_001, "to")]),
    "participation.staleness_discount": (
        ["none", "polynomial", "hinge"],
        [*CHOICE, ("cubic", "none, polynomial, hinge")],
    ),
    "participation.staleness_exponent": ([0, 100], [*REAL, (-0.1, "from 0"), (101, "to 100")]),
    "participation.staleness_threshold": ([0, 100_000], [*WHOLE, (-1, "from 0"), (100_001, "to")]),
    "participation.max_staleness": ([0, 100_000], [*WHOLE, (-1, "from 0"), (100_001, "to")]),
    "tree.parents": ([[], ["auto"], ["pi=hub"]], WORDS),
    "evaluation.every": ([0, 1, 10_000], [*WHOLE, (-1, "from 0"), (10_001, "to 10000")]),
    "evaluation.initial": ([True, False], [(1, "true or false"), (None, "true or false")]),
    "wire.uplink": (["auto", "fp32", "int4"], [*CHOICE, ("int3", "fp32, bf16, fp16, int8, int4")]),
    "wire.top_k": ([1], [*REAL, (0, "above 0"), (1.1, "to 1")]),
    "wire.error_feedback": ([True, False], [(1, "true or false"), (None, "true or false")]),
    "wire.compress": ([True, False], [(1, "true or false"), (None, "true or false")]),
    "wire.downlink": (
        ["fp32", "bf16", "int8", "int4"],
        [*CHOICE, ("fp16", "bf16"), ("auto", "bf16")],
    ),
    "rounds": ([1, 10_000, 3.0], [*WHOLE, (0, "from 1"), (10_001, "to 10000")]),
    "seed": ([0, 2**31 - 1], [*WHOLE, (-1, "from 0"), (2**31, "to 2147483647")]),
    "threads": ([0, 1024], [*WHOLE, (-1, "from 0"), (1025, "to 1024")]),
    "deterministic": (
        [True, False],
        [(1, "true or false"), (0, "true or false"), ("true", "true or false"), (None, "true or")],
    ),
}  # fmt: skip


def test_every_option_is_in_the_table() -> None:
    assert list(OPTIONS) == [item.path for item in options()]


@pytest.mark.parametrize("path", OPTIONS)
def test_an_option_takes_what_it_should(path: str) -> None:
    for value in OPTIONS[path][0]:
        spec = JobSpec.from_dict(with_its_method(path, value))
        assert look_up(spec.to_dict(), path) == value


@pytest.mark.parametrize("path", OPTIONS)
def test_an_option_refuses_the_rest_and_says_why(path: str) -> None:
    for value, text in OPTIONS[path][1]:
        faults = faults_of(nested(path, value))
        assert list(faults) == [path], (value, faults)
        assert text in faults[path], (value, faults)
        assert len(faults[path]) < 400, "a fault shows what is wrong, not all of it"


def test_the_defaults_are_a_specification() -> None:
    spec = JobSpec.from_dict({})
    assert spec == JobSpec()
    assert JobSpec.from_dict(spec.to_dict()) == spec
    assert JobSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_types_are_those_of_the_declaration() -> None:
    spec = JobSpec.from_dict({"rounds": 3.0, "adapter": {"alpha": 4, "targets": ["q"]}})
    assert type(spec.rounds) is int
    assert type(spec.adapter.alpha) is float
    assert spec.adapter.targets == ("q",)
    assert hash(spec) == hash(JobSpec.from_dict(spec.to_dict()))
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
        JobSpec.from_dict({"rounds": 0, "seed": "x"})
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


def test_combinations_come_together() -> None:
    values: dict[str, Any] = {}
    for item, _, _ in COMBINATIONS:
        for part, inner in item.items():
            values[part] = values.get(part, {}) | inner
    assert set(faults_of(values)) == {path for _, path, _ in COMBINATIONS}


def test_combinations_at_their_edge_are_fine() -> None:
    JobSpec.from_dict({"train": {"local_steps": 5, "warmup_steps": 5}})
    JobSpec.from_dict({"train": {"local_steps": 0, "warmup_steps": 500}})
    JobSpec.from_dict({"train": {"micro_tokens": 576}})
    JobSpec.from_dict({"adapter": {"kind": "full"}, "model": {"base": "auto"}})
    JobSpec.from_dict({"participation": {"devices": ["a", "b"], "minimum": 2}})
    JobSpec.from_dict({"participation": {"deadline_s": 60, "lease_s": 60}})
    JobSpec.from_dict({"participation": {"deadline_quantile": 0.5, "quorum": 0.5}})
    JobSpec.from_dict({"participation": {"tiers": 4, "fraction": 0.25}})
    JobSpec.from_dict({"participation": {"mode": "synchronous", "buffer_size": 99}})
    JobSpec.from_dict(
        {"participation": {"mode": "buffered", "devices": ["a", "b"], "buffer_size": 2}}
    )


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
        spec = JobSpec.from_dict(values)
    except SpecError as error:
        assert error.faults
        assert all(fault.message for fault in error.faults)
        assert len({fault.path for fault in error.faults}) == len(error.faults)
    else:
        assert JobSpec.from_dict(spec.to_dict()) == spec


VALID = st.fixed_dictionaries(
    {}, optional={path: st.sampled_from(good) for path, (good, _) in OPTIONS.items()}
)


@settings(max_examples=100, deadline=None)
@given(VALID)
def test_what_is_good_alone_is_good_together_and_comes_back_equal(found: dict[str, Any]) -> None:
    values: dict[str, Any] = {}
    for path, value in found.items():
        inner = nested(path, value)
        key = path.split(".")[0]
        values[key] = values.get(key, {}) | inner[key] if "." in path else value
    try:
        spec = JobSpec.from_dict(values)
    except SpecError as error:  # only the combinations may be wrong
        paths = {fault.path for fault in error.faults}
        assert paths <= {path for _, path, _ in EVERY_COMBINATION}
    else:
        for path, value in found.items():
            assert look_up(spec.to_dict(), path) == value
        assert JobSpec.from_dict(spec.to_dict()) == spec

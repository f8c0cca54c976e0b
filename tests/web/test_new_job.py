"""The new-job form: fields from the specification, errors, estimate."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.http import QueryDict
from django.test import Client
from django.urls import reverse
from django.utils.html import escape

from fedcore.spec.job import JobSpec, options
from fedcore.spec.options.strategy import StrategyKind
from fedcore.spec.parse import parse_spec
from tests.web import factories
from webapp.devices.models import Device
from webapp.jobs.analysis import device_history
from webapp.jobs.models import Job
from webapp.jobs.planning.candidates import last_trainings
from webapp.jobs.planning.job_estimate import estimate
from webapp.pages.jobs import form_values, forms
from webapp.pages.jobs.form_layout import ONLY_WITH


def form_data(**changes: Any) -> dict[str, Any]:
    """The fields of an unchanged form, with changes."""
    sent: dict[str, Any] = {}
    for info in options(JobSpec):
        if isinstance(info.default, bool):
            sent |= {info.path: "on"} if info.default else {}
            continue
        value = info.default
        sent[info.path] = list(value) if isinstance(value, tuple) else str(value)
    return sent | changes


def post(**changes: Any) -> QueryDict:
    query = QueryDict(mutable=True)
    for key, value in form_data(**changes).items():
        query.setlist(key, value if isinstance(value, list) else [value])
    return query


def test_form_has_every_option_once() -> None:
    sections = forms.sections(JobSpec().to_dict(), [], [])
    names = [field.name for part in sections for field in part.fields + part.advanced]
    assert sorted(names) == sorted(info.path for info in options(JobSpec))
    assert [part.key for part in sections] == ["learn", "who", "how", "travel", "limits"]
    assert all(part.fields for part in sections)
    limits = [field.name for part in sections if part.key == "limits" for field in part.advanced]
    groups = {name.partition(".")[0] for name in limits if "." in name}
    assert groups == {"participation", "evaluation"}, "a group of options has no section"


def test_untouched_form_is_the_default_specification() -> None:
    assert parse_spec(form_values.read(post())) == JobSpec()


def test_list_options_are_comma_separated() -> None:
    typed = {"adapter.aggregation": "flexlora", "adapter.rank": "8"}
    spec = parse_spec(form_values.read(post(**typed, **{"adapter.ranks": ["4, 8,,pi=2 "]})))
    assert spec.adapter.ranks == ("4", "8", "pi=2")
    assert fields_by_path(spec.to_dict())["adapter.ranks"].value == "4, 8, pi=2"
    assert fields_by_path(JobSpec().to_dict())["adapter.ranks"].value == ""


def fields_by_path(values: dict[str, Any]) -> dict[str, forms.OptionField]:
    form_sections = forms.sections(values, [], [])
    return {field.name: field for part in form_sections for field in part.fields + part.advanced}


def test_rare_strategies_are_behind_a_fold() -> None:
    usual = fields_by_path(JobSpec().to_dict())
    cards = usual["strategy.name"]
    assert [card.value for card in cards.usual] == ["fedavg", "fedprox", "fedadam"]
    assert {card.value for card in cards.usual + cards.rare} == set(StrategyKind)
    assert all(card.note for card in cards.choices) and not cards.rare_open
    assert fields_by_path({"strategy": {"name": "qfedavg"}})["strategy.name"].rare_open
    path, _, values = usual["strategy.beta1"].only_with.partition("=")
    assert path == "strategy.name"
    assert set(values.split("|")) == {"fedavgm", "fedadam", "fedadamw", "fedyogi", "fedadagrad"}
    assert usual["rounds"].only_with == ""
    advanced = next(
        part for part in forms.sections(JobSpec().to_dict(), [], []) if part.key == "how"
    )
    assert not advanced.open, "nothing in it differs from its default"


@pytest.mark.parametrize(("path", "condition"), ONLY_WITH.items())
def test_only_with_refers_to_existing_choices(path: str, condition: tuple[str, ...]) -> None:
    known = {info.path: info for info in options(JobSpec)}
    assert path in known and condition[1:]
    assert set(condition[1:]) <= set(known[condition[0]].choices or ())


def test_hidden_options_are_not_validated() -> None:
    """Rewards were entered for PFIT before another method was chosen."""
    typed = {"method.rewards": ["leak"], "adapter.rank": "many", "rounds": "many"}
    hidden = "method.rewards,adapter.rank,rounds,no.such"
    values = form_values.read(post(**typed, **{form_values.HIDDEN_OPTIONS: hidden}))
    assert "rewards" not in values["method"] and "rank" not in values["adapter"]
    assert values["rounds"] == "many", "an option of no other choice is never hidden"
    del values["rounds"]
    assert parse_spec(values) == JobSpec()
    assert form_values.read(post(**typed))["method"]["rewards"] == "leak"


def test_options_of_cards_follow_their_choice() -> None:
    how = next(part for part in forms.sections(JobSpec().to_dict(), [], []) if part.key == "how")
    order = [field.name for field in how.fields]
    for choice, dependent in (
        ("adapter.kind", "adapter.rank"),
        ("adapter.aggregation", "adapter.ranks"),
        ("strategy.name", "strategy.fairness_q"),
        ("method.name", "method.rewards"),
    ):
        assert order.index(choice) < order.index(dependent)
        cards = fields_by_path(JobSpec().to_dict())[choice]
        assert cards.kind == "cards" and all(card.note for card in cards.choices)
    method = [field for field in how.fields + how.advanced if field.name.startswith("method.")]
    assert all(field.only_with for field in method if field.name != "method.name")
    assert not any(field.help.startswith(("PFIT", "PFTT", "FedPipe")) for field in method)


def test_launch(ada: Client, fleet: list[Device]) -> None:
    names = [fleet[0].name, fleet[1].name]
    sent = form_data(**{"name": "law", "rounds": "3", "participation.devices": names})
    answer = ada.post(reverse("job-new"), sent | {"deterministic": "on", "then": "launch"})
    job = Job.objects.get()
    assert answer["Location"] == reverse("job", args=[job.pk])
    assert (job.phase, job.spec["rounds"], job.spec["deterministic"]) == ("queued", 3, True)
    assert job.spec["participation"]["devices"] == names


def test_draft_is_not_launched(ada: Client) -> None:
    ada.post(reverse("job-new"), form_data() | {"then": "draft"})
    assert Job.objects.get().phase == "draft"


def test_all_errors_are_shown_at_their_fields(ada: Client) -> None:
    wrong = {
        "rounds": "many",
        "train.learning_rate": "-1",
        "adapter.rank": "",
        "strategy.name": "magic",
        "adapter.targets": [],
        "participation.fraction": "nan",
    }
    answer = ada.post(reverse("job-new"), form_data(**wrong))
    text = answer.content.decode()
    assert answer.status_code == 422
    assert "Fix 6 settings before launching" in text
    for path in wrong:
        assert f"{'o-' + path.replace('.', '-').replace('_', '-')}-error" in text, path
    assert 'value="many"' in text
    assert not Job.objects.exists()


def test_unknown_device_is_an_error_of_its_field(ada: Client) -> None:
    answer = ada.post(reverse("job-new"), form_data(**{"participation.devices": ["ghost"]}))
    assert answer.status_code == 422
    assert "no device is called ghost" in answer.content.decode().lower()


def test_rank_of_unknown_device_is_an_error_of_its_field(ada: Client) -> None:
    words = {"adapter.aggregation": "flexlora", "adapter.ranks": "ghost=4"}
    answer = ada.post(reverse("job-new"), form_data(**words))
    assert answer.status_code == 422
    text = answer.content.decode()
    assert "no device of this job is called" in text and "ghost" in text
    assert "o-adapter-ranks-error" in text


def test_duplicate_starts_from_the_other_job(ada: Client, job: Job) -> None:
    text = ada.get(reverse("job-new"), {"from": str(job.pk)}).content.decode()
    assert 'value="clinic notes"' in text
    assert 'value="10"' in text


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_estimate_requires_the_operator_role(as_role: Callable[[str], Client], role: str) -> None:
    answer = as_role(role).post(reverse("job-estimate"), form_data())
    assert answer.status_code == (403 if role == "viewer" else 200)


def test_estimate_follows_the_form(ada: Client, fleet: list[Device]) -> None:
    address = reverse("job-estimate")
    assert "Fits 3 of 3 devices" in ada.post(address, form_data()).content.decode()
    few = ada.post(address, form_data(**{"data.min_examples": "300"})).content.decode()
    assert "Fits 2 of 3 devices" in few
    assert "law has 180 of 300 examples" in few
    assert "1 setting to fix" in ada.post(address, form_data(rounds="x")).content.decode()


def test_estimate_reports_launch_errors(ada: Client, fleet: list[Device]) -> None:
    """All together: unknown devices in the list and in the tree."""
    wrong = {"participation.devices": ["ghost"], "tree.parents": ["a=b"]}
    text = ada.post(reverse("job-estimate"), form_data(**wrong)).content.decode()
    assert "3 settings to fix" in text and 'href="#o-tree-parents"' in text
    assert "no device is called ghost" in text and "is called &#x27;b&#x27;" in text
    refused = ada.post(reverse("job-new"), form_data(**wrong)).content.decode()
    assert "Fix 3 settings before launching" in refused
    sent = {"participation": {"devices": ["ghost"]}}
    answer = ada.post(reverse("api-job-estimate"), sent, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json()["faults"][0]["path"] == "participation.devices"


def estimate_of(spec: JobSpec) -> Any:
    devices = list(device_history.devices_with_data())
    return estimate(spec, devices, last_trainings(devices))


def test_estimate_of_known_model(fleet: list[Device]) -> None:
    small = estimate_of(factories.make_spec(model={"name": "google/flan-t5-small"}))
    # methods.md section 0: LoRA r = 8 on q, v of FLAN-T5-small is 1.38 MB one way in fp32.
    assert small.payload == pytest.approx(1.38e6, rel=0.01)
    assert small.device_bytes == 2 * small.payload
    coded = {"uplink": "int4", "downlink": "int8"}
    fewer = estimate_of(factories.make_spec(model={"name": "google/flan-t5-small"}, wire=coded))
    assert fewer.device_bytes == pytest.approx((0.53125 + 1.015625) * small.payload / 4, rel=0.001)
    assert small.total_bytes == small.device_bytes * 3 * 10
    assert small.total_s is not None
    assert small.total_s > 0


def test_estimate_excludes_devices_without_memory(fleet: list[Device]) -> None:
    huge = estimate_of(
        factories.make_spec(
            model={"name": "google/flan-t5-xl"}, adapter={"kind": "full"}, train={"batch_size": 8}
        )
    )
    assert not huge.fitting
    assert all("needs about" in part.why for part in huge.excluded)


def test_estimate_of_unknown_model_says_so(fleet: list[Device]) -> None:
    unknown = estimate_of(factories.make_spec(model={"name": "someone/some-t5"}))
    assert (unknown.payload, unknown.total_s) == (None, None)
    assert "unknown" in unknown.assumed[0]


def test_estimate_excludes_aggregators_and_empty_devices(db: None) -> None:
    factories.make_device("folds", role="aggregator")
    empty = factories.make_device("bare", 1)
    empty.datasets.all().delete()
    result = estimate_of(factories.make_spec())
    assert {part.name: part.why for part in result.excluded} == {
        "folds": "only aggregates, in jobs with an aggregation tree",
        "bare": "has no data",
    }


def test_estimate_lists_clusters(ada: Client, fleet: list[Device]) -> None:
    names = [device.name for device in fleet]
    factories.make_device("hub", 8, role="aggregator")
    factories.make_device("spare", 9, role="aggregator")
    tree = f"{names[0]}=hub, {names[1]}=hub"
    result = estimate_of(factories.make_spec(tree={"parents": tree.split(", ")}))
    assert {c.head: set(c.children) for c in result.clusters} == {"hub": {*names[:2]}}
    assert [part.name for part in result.excluded] == ["spare"]
    assert len(result.parts) == len(names) + 1
    text = ada.post(reverse("job-estimate"), form_data(**{"tree.parents": tree})).content.decode()
    assert "<b>hub</b> merges " in text
    shared = estimate_of(factories.make_spec(tree={"parents": ["auto"]}))
    assert {name for cluster in shared.clusters for name in cluster.children} == {*names}
    assert not shared.excluded
    assert "only aggregates" in ada.get(reverse("job-new")).content.decode()


def test_budget_too_small_is_reported_at_its_option(ada: Client, fleet: list[Device]) -> None:
    sent = {
        "method.name": "fedpipe",
        "adapter.aggregation": "flexlora",
        "model.name": "google/flan-t5-base",
        "method.memory_budget_mb": "100",
    }
    text = ada.post(reverse("job-estimate"), form_data(**sent)).content.decode()
    assert 'href="#o-method-memory-budget-mb">Memory budget, MB</a>: no device can' in text
    least = re.search(r"needs at least (\S+ \SB) of memory and may use 100 MB", text)
    assert least, text
    assert "no power figures for" not in text, "no device lacks them"
    enough = ada.post(
        reverse("job-estimate"), form_data(**{**sent, "method.memory_budget_mb": "0"})
    ).content.decode()
    assert "no device can be planned" not in enough


def test_asynchronous_estimate_ignores_the_slowest_device(fleet: list[Device]) -> None:
    model = {"name": "google/flan-t5-small"}
    whole = estimate_of(factories.make_spec(model=model))
    result = estimate_of(
        factories.make_spec(model=model, participation={"mode": "buffered", "buffer_size": 2})
    )
    assert result.per_round == 2
    assert 0 < result.round_s < whole.round_s


def test_estimate_shows_the_planner_figures(ada: Client, fleet: list[Device]) -> None:
    sent = form_data(**{"model.name": "google/flan-t5-base"})
    text = ada.post(reverse("job-estimate"), sent).content.decode()
    for words in ("Slowest device", "steps of", "Compute : network", "Expected MFU", " memory",
                  "Biggest saving", "no power figures for nuc-office"):  # fmt: skip
        assert words in text, words


def test_estimate_shows_fedpipe_plans_and_their_energy(ada: Client, fleet: list[Device]) -> None:
    options = {"model.name": "google/flan-t5-base", "method.name": "fedpipe"}
    sent = form_data(**{**options, "adapter.aggregation": "flexlora"})
    text = ada.post(reverse("job-estimate"), sent).content.decode()
    result = estimate_of(
        factories.make_spec(
            model={"name": "google/flan-t5-base"},
            method={"name": "fedpipe"},
            adapter={"aggregation": "flexlora"},
        )
    )
    seen: set[bool] = set()
    for part in result.fitting:
        row = re.search(rf"<li>{part.name}: .*?</li>", text)
        assert row and part.plan.allocation
        assert escape(part.plan.allocation.why) in row[0]
        if part.plan.energy.total_j is not None:
            assert ("J computing" in row[0]) is not part.plan.energy.complete
            seen.add(part.plan.energy.complete)
    assert True in seen, "no device of the fleet has complete power figures"


def test_estimate_uses_the_newest_training(fleet: list[Device]) -> None:
    spec = factories.make_spec(model={"name": "google/flan-t5-small"})
    fresh = estimate_of(spec)
    factories.running_job(fleet, rounds=2, samples=2)
    known = estimate_of(spec)
    before = {part.name: part for part in fresh.parts}
    for part in known.parts:
        assert part.plan.step.mfu in [pytest.approx(share) for share in (0.31, 0.36, 0.41)]
        assert part.plan.step_s != before[part.name].plan.step_s
        assert part.plan.seconds["upload_s"] != before[part.name].plan.seconds["upload_s"]


def test_estimate_of_pfit_ignores_other_mfu(fleet: list[Device]) -> None:
    rewarded = {"method": {"name": "pfit"}, "adapter": {"kind": "layers"}}
    spec = factories.make_spec(model={"name": "google/flan-t5-small"}, **rewarded)
    fresh = [part.plan.step_s for part in estimate_of(spec).parts]
    factories.running_job(fleet, rounds=2, samples=2)
    assert [part.plan.step_s for part in estimate_of(spec).parts] == fresh
    Job.objects.update(spec=spec.to_dict())
    assert [part.plan.step_s for part in estimate_of(spec).parts] != fresh


def test_implausible_profile_is_reported_and_ignored(fleet: list[Device]) -> None:
    device = fleet[0]
    device.profile = {**device.profile, "memory_bytes": -8e9, "peak_flops": {"fp32": "fast"}}
    device.save()
    result = estimate_of(factories.make_spec(model={"name": "google/flan-t5-small"}))
    assert any(f"{device.name}: memory_bytes cannot be" in note for note in result.assumed)
    assert result.total_s is not None


def test_estimate_advises_large_fleets(db: None) -> None:
    factories.make_fleet(40)
    result = estimate_of(factories.make_spec(model={"name": "google/flan-t5-base"}))
    assert result.best is not None
    assert len(result.parts) == 40
    assert result.best.round_s < result.round_s

"""The new-job form: fields from the specification, and errors."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from fedcore.spec.job import JobSpec, options
from fedcore.spec.options.strategy import StrategyKind
from fedcore.spec.parse import parse_spec
from tests.web.job_forms import form_data, post
from webapp.devices.models import Device
from webapp.jobs.models import Job
from webapp.pages.jobs import form_values, forms
from webapp.pages.jobs.form_layout import ONLY_WITH


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

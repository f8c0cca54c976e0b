"""How a job's examples lie on its devices, beside the form."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from django.test import Client
from django.urls import reverse

from tests.web.factories import make_device
from tests.web.test_new_job import filled
from webapp.devices.models import Dataset, Device
from webapp.jobs.planning.data_distribution import SHOWN, spread_of


def held(name: str, examples: int, domain: str = "", dataset: str = "notes") -> Any:
    return SimpleNamespace(name=name, dataset=dataset, domain=domain, examples=examples)


def test_shares_are_of_all_and_lengths_of_the_largest() -> None:
    found = spread_of([held("a", 50, "law"), held("b", 150, "clinic"), held("c", 200, "law")])
    assert found is not None
    assert [one.name for one in found.holdings] == ["c", "b", "a"]
    assert [one.share for one in found.holdings] == [0.5, 0.375, 0.125]
    assert [one.length for one in found.holdings] == [1.0, 0.75, 0.25]
    assert found.domains == (("law", 250, 2), ("clinic", 150, 1))
    assert (found.total, found.uneven, found.more) == (400, 4.0, 0)


def test_a_large_fleet_shows_its_largest() -> None:
    found = spread_of([held(f"d{number:03}", 1000 - number) for number in range(300)])
    assert found is not None
    assert len(found.holdings) == SHOWN and found.more == 300 - SHOWN
    assert found.uneven == 1000 / 701
    assert sum(one.share for one in found.holdings) < 0.1


def test_nobody_has_no_spread() -> None:
    assert spread_of([]) is None
    empty = spread_of([held("a", 0)])
    assert empty is not None and (empty.holdings[0].share, empty.uneven) == (0, 0)


def test_a_domain_is_told_once() -> None:
    found = spread_of([held("a", 5, "law", "law"), held("b", 4, "clinic", "notes")])
    assert found is not None
    assert [one.words for one in found.holdings] == ["law", "notes, clinic"]


def test_the_page_shows_those_that_were_ticked(ada: Client, fleet: list[Device]) -> None:
    Dataset.objects.filter(device=fleet[0]).update(name="ward", domain="clinic", examples=300)
    Dataset.objects.filter(device=fleet[1]).update(name="court", domain="law", examples=100)
    names = [fleet[0].name, fleet[1].name]
    sent = filled(**{"participation.devices": names})
    text = ada.post(reverse("job-estimate"), sent).content.decode()
    block = text[text.index("Data distribution") : text.index("</section>")]
    assert "400 examples on 2 devices; the largest device has 3 times" in block.replace("3.00", "3")
    assert "ward, clinic" in block and "court, law" in block and "75.0" in block
    assert fleet[2].name not in block
    assert block.count('aria-hidden="true"') == 2


def test_a_device_without_enough_is_not_in_it(ada: Client, fleet: list[Device]) -> None:
    make_device(number=7)
    Dataset.objects.filter(device=fleet[0]).update(examples=3)
    text = ada.post(reverse("job-estimate"), filled()).content.decode()
    assert f"<b>{fleet[0].name}</b> <span>3 " not in text

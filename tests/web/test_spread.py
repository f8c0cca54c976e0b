"""Data distribution in the estimate of a new job."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from django.test import Client
from django.urls import reverse

from tests.web.factories import make_device
from tests.web.job_forms import form_data
from webapp.devices.models import Dataset, Device
from webapp.jobs.planning.data_distribution import MAX_DEVICES, spread_of


def device_part(name: str, examples: int, domain: str = "", dataset: str = "notes") -> Any:
    return SimpleNamespace(name=name, dataset=dataset, domain=domain, examples=examples)


def test_distribution_shares_and_bar_lengths() -> None:
    distribution = spread_of(
        [device_part("a", 50, "law"), device_part("b", 150, "clinic"), device_part("c", 200, "law")]
    )
    assert distribution is not None
    assert [holding.name for holding in distribution.holdings] == ["c", "b", "a"]
    assert [holding.share for holding in distribution.holdings] == [0.5, 0.375, 0.125]
    assert [holding.length for holding in distribution.holdings] == [1.0, 0.75, 0.25]
    assert distribution.domains == (("law", 250, 2), ("clinic", 150, 1))
    assert (distribution.total, distribution.uneven, distribution.more) == (400, 4.0, 0)


def test_distribution_shows_the_largest_holdings() -> None:
    distribution = spread_of([device_part(f"d{number:03}", 1000 - number) for number in range(300)])
    assert distribution is not None
    assert len(distribution.holdings) == MAX_DEVICES and distribution.more == 300 - MAX_DEVICES
    assert distribution.uneven == 1000 / 701
    assert sum(holding.share for holding in distribution.holdings) < 0.1


def test_distribution_without_devices_is_none() -> None:
    assert spread_of([]) is None
    empty = spread_of([device_part("a", 0)])
    assert empty is not None and (empty.holdings[0].share, empty.uneven) == (0, 0)


def test_domain_equal_to_name_is_shown_once() -> None:
    distribution = spread_of(
        [device_part("a", 5, "law", "law"), device_part("b", 4, "clinic", "notes")]
    )
    assert distribution is not None
    assert [holding.words for holding in distribution.holdings] == ["law", "notes, clinic"]


def test_distribution_covers_selected_devices(ada: Client, fleet: list[Device]) -> None:
    Dataset.objects.filter(device=fleet[0]).update(name="ward", domain="clinic", examples=300)
    Dataset.objects.filter(device=fleet[1]).update(name="court", domain="law", examples=100)
    names = [fleet[0].name, fleet[1].name]
    sent = form_data(**{"participation.devices": names})
    text = ada.post(reverse("job-estimate"), sent).content.decode()
    block = text[text.index("Data distribution") : text.index("</section>")]
    assert "400 examples on 2 devices; the largest device has 3 times" in block.replace("3.00", "3")
    assert "ward, clinic" in block and "court, law" in block and "75.0" in block
    assert fleet[2].name not in block
    assert block.count('aria-hidden="true"') == 2


def test_distribution_excludes_devices_with_too_little_data(
    ada: Client, fleet: list[Device]
) -> None:
    make_device(number=7)
    Dataset.objects.filter(device=fleet[0]).update(examples=3)
    text = ada.post(reverse("job-estimate"), form_data()).content.decode()
    assert f"<b>{fleet[0].name}</b> <span>3 " not in text

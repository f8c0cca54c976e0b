"""The check that every web test makes: no template of the site has an undefined variable."""

from __future__ import annotations

import pytest
from django.template.loader import get_template, render_to_string

from tests.web.undefined_variables import OPTIONAL


def test_undefined_variable_is_reported(undefined: list[str]) -> None:
    render_to_string("parts/pages.html")
    render_to_string("jobs/_estimate.html", {"estimate": None})
    names = ["parts/pages.html: page.has_other_pages", "jobs/_estimate.html: later"]
    assert undefined[:2] == names
    undefined.clear()


def test_undefined_variable_is_reported_with_its_page(undefined: list[str]) -> None:
    render_to_string("429.html", {"messages": (), "reason": "too many", "again_at": None})
    assert "429.html: wait" in undefined
    assert {name.partition(":")[0] for name in undefined} == {"429.html"}
    undefined.clear()


def test_attribute_of_none_is_not_reported(undefined: list[str]) -> None:
    render_to_string("parts/pages.html", {"page": None})
    assert undefined == []


@pytest.mark.parametrize("template", OPTIONAL)
def test_optional_variables_are_in_their_template(template: str) -> None:
    source = get_template(template).template.source
    assert [name for name in OPTIONAL[template] if name not in source] == []

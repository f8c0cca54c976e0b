"""The values of the new-job form: from the POST to the nested values ``parse_spec`` reads."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from django.http import QueryDict

from fedcore.spec.job import JobSpec, OptionInfo, options
from webapp.pages.jobs.form_layout import ONLY_WITH

Json = dict[str, Any]
# Form field with the paths of the options that new_job_page.js hides, separated by commas.
HIDDEN_OPTIONS = "hidden-options"


def read(post: QueryDict) -> Json:
    """Nested values of a submitted form; text that is no number stays as typed.

    An option that the page has hidden, because it belongs to another choice, keeps its default.
    """
    values: Json = {}
    hidden = set(post.get(HIDDEN_OPTIONS, "").split(",")) & set(ONLY_WITH)
    for info in options(JobSpec):
        if info.path in hidden:
            continue
        *groups, name = info.path.split(".")
        target = values
        for group in groups:
            target = target.setdefault(group, {})
        text = post.get(info.path, "")
        value: Any = text
        if isinstance(info.default, tuple):
            words = [word for word in post.getlist(info.path) if word]
            value = ", ".join(words) if is_text_list(info) else words
        elif isinstance(info.default, bool):
            value = info.path in post
        elif isinstance(info.default, str):
            value = text if "prefix" in info.path else text.strip()
        else:
            for number in (int, float):
                with contextlib.suppress(ValueError, OverflowError):
                    value = number(text.strip())
                    break
        target[name] = value
    return values


def is_text_list(info: OptionInfo) -> bool:
    """Whether the option is a list typed as text, separated by commas."""
    is_picked = info.choices is not None or info.path == "participation.devices"
    return isinstance(info.default, tuple) and not is_picked


def value_at(values: Mapping[str, Any], path: str, default: Any) -> Any:
    """The value of an option in nested values, or its default."""
    value: Any = values
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return plain(default)
        value = value[name]
    return plain(value)


def plain(value: Any) -> Any:
    """A tuple as a list, as JSON has it."""
    return list(value) if isinstance(value, tuple) else value

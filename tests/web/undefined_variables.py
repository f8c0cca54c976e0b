"""Undefined variables in the site's own templates, which Django renders as nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.template import Context, Variable, VariableDoesNotExist

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "templates", ROOT / "webapp")
PARENT = "base.html"  # blocks of a page are rendered in its parent's name
# By template: keys of stored JSON that a device, a job or a round may lack.
OPTIONAL = {
    "devices/_enrolment.html": {"device.profile.kind"},
    "devices/_table.html": {"device.profile.kind", "device.activity.phase"},
    "devices/page.html": {
        *("p.kind", "p.os", "p.cpu", "p.cores", "p.threads", "p.memory_bytes", "p.torch"),
        *("p.accelerator", "p.accelerator_memory_bytes"),
    },
    "jobs/_models.html": {"row.evaluation.rougeL"},
    "jobs/page.html": {"job.model_info.parameters", "job.model_info.trainable"},
}


@contextmanager
def undefined_variables() -> Iterator[list[str]]:
    """Names of undefined variables with their templates, filled in as templates are rendered.

    An attribute of None is not undefined: pages rely on it to leave out what is not known.
    """
    names: list[str] = []
    resolve = Variable.resolve

    def recorded(variable: Variable, context: Context) -> object:
        try:
            return resolve(variable, context)
        except VariableDoesNotExist as error:
            if error.params[1] is not None and (name := _required_name(variable, context)):
                names.append(name)
            raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Variable, "resolve", recorded)
        yield names


def _required_name(variable: Variable, context: Context) -> str:
    """Template and variable; "" for templates of other packages and for optional variables."""
    template = context.render_context.template
    origin = Path(template.origin.name)
    name = context.template_name if template.name == PARENT else template.name
    is_ours = any(origin.is_relative_to(folder) for folder in FOLDERS)
    if not is_ours or variable.var in OPTIONAL.get(name, ()):
        return ""
    return f"{name}: {variable.var}"

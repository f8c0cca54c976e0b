"""What a person takes home of a tuned model, as far as no tensor is needed to say it.

Standard library only: a web process zips an adapter's folder with the artefact, which already is
its file of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedcore.spec.job import JobSpec

# Why there is no adapter to take from a job whose rule merges into the base (stack, fedex).
BASE_CHANGED = (
    "this job folds part of what it learns into the base model, so its adapter alone is not the "
    "model; take the whole model"
)


@dataclass(frozen=True)
class AdapterFolder:
    """The files beside an adapter's weights.

    ``readme`` has the fields name, model, base, prefix, when, sha256 and width.
    """

    weights_file: str
    config_file: str
    config_text: Callable[[JobSpec], str]
    readme: str


@dataclass(frozen=True)
class Export:
    """What jobs of one adapter kind give: ``folder`` None: there is no adapter beside the model.

    ``not_merged`` says why there is no merged model; '' where there is one.
    """

    folder: AdapterFolder | None = None
    not_merged: str = ""

"""Printed scores of the single devices: personal models and fairness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fedcore.fairness import evenness
from fedcore.train.evaluate import Evaluation

PREFIX = "personal_"
Scores = Mapping[str, float]


def personal_rows(
    evaluations: Mapping[str, Evaluation],
) -> list[tuple[str, Scores, int, float]]:
    """Name, scores, examples and seconds of each personal model."""
    return [
        (f"{name}, own", scores, item.examples, item.seconds)
        for name, item in evaluations.items()
        if (scores := personal_scores(item.more))
    ]


def personal_scores(values: Scores) -> dict[str, float]:
    """The scores of the device's personal model, named as those of the shared one."""
    return {
        name.removeprefix(PREFIX): value
        for name, value in values.items()
        if name.startswith(PREFIX)
    }


def fairness_lines(evaluations: Mapping[str, Evaluation]) -> Iterator[str]:
    """The spread of ROUGE-L over several devices, and the gain of their personal models."""
    shared = {name: item.rougeL for name, item in evaluations.items()}
    personal = {
        name: scores["rougeL"]
        for name, item in evaluations.items()
        if (scores := personal_scores(item.more))
    }
    for label, scores in (("shared model", shared), ("own models", personal)):
        even = evenness(scores) if len(scores) > 1 else None
        if even:
            yield (
                f"{label}: ROUGE-L mean {even.mean:.2f}, worst {even.worst:.2f} "
                f"({even.worst_device}), spread {even.spread:.2f}, Jain {even.jain:.3f}"
            )
    if personal:
        gains = [personal[name] - shared[name] for name in personal]
        yield (
            f"own over shared: ROUGE-L {sum(gains) / len(gains):+.2f} "
            f"({min(gains):+.2f} to {max(gains):+.2f})"
        )

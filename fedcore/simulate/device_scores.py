"""What a simulation prints of the single devices: their own models, and how even the scores are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fedcore.fairness import evenness
from fedcore.train.evaluate import Evaluation

PREFIX = "personal_"
Scores = Mapping[str, float]


def own_rows(found: Mapping[str, Evaluation]) -> list[tuple[str, Scores, int, float]]:
    """Name, scores, examples and seconds of each device's own model, where it has one."""
    return [
        (f"{name}, own", own, item.examples, item.seconds)
        for name, item in found.items()
        if (own := own_scores(item.more))
    ]


def own_scores(values: Scores) -> dict[str, float]:
    """The scores of the device's own model, named as those of the shared one."""
    return {
        name.removeprefix(PREFIX): value
        for name, value in values.items()
        if name.startswith(PREFIX)
    }


def even_lines(found: Mapping[str, Evaluation]) -> Iterator[str]:
    """How evenly ROUGE-L is spread over several devices; how much their own models gain."""
    shared = {name: item.rougeL for name, item in found.items()}
    own = {
        name: scores["rougeL"] for name, item in found.items() if (scores := own_scores(item.more))
    }
    for label, scores in (("shared model", shared), ("own models", own)):
        even = evenness(scores) if len(scores) > 1 else None
        if even:
            yield (
                f"{label}: ROUGE-L mean {even.mean:.2f}, worst {even.worst:.2f} "
                f"({even.worst_device}), spread {even.spread:.2f}, Jain {even.jain:.3f}"
            )
    if own:
        gains = [own[name] - shared[name] for name in own]
        yield (
            f"own over shared: ROUGE-L {sum(gains) / len(gains):+.2f} "
            f"({min(gains):+.2f} to {max(gains):+.2f})"
        )

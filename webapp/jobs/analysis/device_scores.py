"""Each device's last evaluation of the shared and of its personalised model, and fairness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedcore.fairness import Evenness, evenness
from webapp.jobs.analysis.json_types import EvennessJson, FairnessJson, RoundJson, ScoreJson

# Of a personalised model, on the same examples as the shared one.
PERSONAL = ("personal_loss", "personal_rouge1", "personal_rouge2", "personal_rougeL")
SHARED, OWN = "rougeL", "personal_rougeL"
NO_SCORE: ScoreJson = {"rougeL": None, "personal_rougeL": None, "round": None}


def newest_scores(rounds: Sequence[RoundJson]) -> dict[int, ScoreJson]:
    """ROUGE-L of each slot's last evaluation. ``rounds`` are in order."""
    scores: dict[int, ScoreJson] = {}
    for row in rounds:
        for item in row["evaluate"]:
            if item["rougeL"] is not None:
                scores[item["slot"]] = {
                    "rougeL": item["rougeL"],
                    "personal_rougeL": item.get("personal_rougeL"),
                    "round": row["number"],
                }
    return scores


def score_evenness(names: Mapping[int, str], rounds: Sequence[RoundJson]) -> EvennessJson | None:
    """How evenly the models serve the devices; None with fewer than two devices.

    ``names``: device name by slot.
    """
    newest = newest_scores(rounds)
    scores = {names[slot]: score for slot, score in newest.items() if slot in names}
    shared = {name: score["rougeL"] or 0.0 for name, score in scores.items()}
    personal = {
        name: score["personal_rougeL"]
        for name, score in scores.items()
        if score["personal_rougeL"] is not None
    }
    if len(shared) < 2:
        return None
    gains = sorted(personal[name] - shared[name] for name in personal)
    gain = (sum(gains) / len(gains), gains[0], gains[-1]) if gains else None
    return {
        "shared": _fairness_json(evenness(shared)),
        "own": _fairness_json(evenness(personal)),
        "gain": dict(zip(("mean", "least", "most"), gain, strict=True)) if gain else None,
    }


def _fairness_json(fairness: Evenness | None) -> FairnessJson | None:
    if fairness is None:
        return None
    return {
        "worst_device": fairness.worst_device,
        "worst": fairness.worst,
        "mean": fairness.mean,
        "spread": fairness.spread,
        "jain": fairness.jain,
    }

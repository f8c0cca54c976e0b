"""What the devices' evaluations say of each of them: the shared model, and a model of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedcore.fairness import Evenness, evenness

Json = dict[str, Any]
# Of a device's own model, on the same examples as the shared one; only where a method has one.
PERSONAL = ("personal_loss", "personal_rouge1", "personal_rouge2", "personal_rougeL")
SHARED, OWN = "rougeL", "personal_rougeL"
NO_SCORE: Json = {SHARED: None, OWN: None, "round": None}


def newest_scores(told: Sequence[Json]) -> dict[int, Json]:
    """ROUGE-L of each slot's last evaluation, F1 in percent. ``told`` are rounds in their order."""
    found: dict[int, Json] = {}
    for row in told:
        for part in row["evaluate"]:
            if part[SHARED] is not None:
                mine = {SHARED: part[SHARED], OWN: part.get(OWN), "round": row["number"]}
                found[part["slot"]] = mine
    return found


def score_evenness(scores: Mapping[str, Json]) -> Json | None:
    """How evenly both kinds of model serve the devices; None with fewer than two devices.

    ``gain`` is what the own models have over the shared one: their mean, the least and the most.
    """
    shared = {name: one[SHARED] for name, one in scores.items()}
    own = {name: one[OWN] for name, one in scores.items() if one[OWN] is not None}
    if len(shared) < 2:
        return None
    gains = sorted(own[name] - shared[name] for name in own)
    gain = (sum(gains) / len(gains), gains[0], gains[-1]) if gains else None
    return {
        "shared": _plain(evenness(shared)),
        "own": _plain(evenness(own)),
        "gain": dict(zip(("mean", "least", "most"), gain, strict=True)) if gain else None,
    }


def _plain(found: Evenness | None) -> Json | None:
    if found is None:
        return None
    return {
        "worst_device": found.worst_device,
        "worst": found.worst,
        "mean": found.mean,
        "spread": found.spread,
        "jain": found.jain,
    }

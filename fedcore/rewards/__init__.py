"""What a summary is worth: pure functions of source, reference and summary, in a table by name."""

from fedcore.rewards.table import MEASURES, Measure, Scorer, Texts

__all__ = ["MEASURES", "Measure", "Scorer", "Texts"]

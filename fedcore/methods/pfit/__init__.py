"""What a summary is worth: pure functions of source, reference and summary, in a table by name."""

from fedcore.methods.pfit.reward_table import MEASURES, Measure, Scorer, Texts

__all__ = ["MEASURES", "Measure", "Scorer", "Texts"]

"""Seeded dialogues with summaries: the demo's data, made here, so that nobody's text is needed."""

from fedcore.dialogues.examples import DOMAINS, HELD_OUT_DOMAINS, Example, generate

__all__ = ["DOMAINS", "HELD_OUT_DOMAINS", "Example", "generate"]

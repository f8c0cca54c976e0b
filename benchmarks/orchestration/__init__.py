"""Rounds of the real system with training switched off: what orchestration and transport cost."""

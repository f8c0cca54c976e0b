"""A whole federation in one process: for research, for tests, for benchmarks."""

from fedcore.simulate.federation import RoundResult, simulate

__all__ = ["RoundResult", "simulate"]

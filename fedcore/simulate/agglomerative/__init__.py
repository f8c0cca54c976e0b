"""A tree of models that teach each other, in one process: end, edge, cloud (arXiv 2312.11489)."""

from fedcore.simulate.agglomerative.rounds import simulate_tree

__all__ = ["simulate_tree"]

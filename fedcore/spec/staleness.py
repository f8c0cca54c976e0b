"""How much an update counts that was made from an older model than the one it is added to.

Staleness is how many versions came between: 0 for an update to the newest one. All functions are 1
there and never rise. Xie et al. 2019 (FedAsync, arXiv 1903.03934), section 5.2; FedBuff (Nguyen et
al. 2022, arXiv 2106.06639) takes the polynomial one with exponent 1/2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

Discount = Callable[[int, float, int], float]

DISCOUNTS: Mapping[str, Discount] = {
    "none": lambda _staleness, _exponent, _threshold: 1.0,
    "polynomial": lambda staleness, exponent, _threshold: (1.0 + staleness) ** -exponent,
    "hinge": lambda staleness, exponent, threshold: (
        1.0 / (1.0 + exponent * max(0, staleness - threshold))
    ),
}


def discount(name: str, staleness: int, exponent: float, threshold: int) -> float:
    """The factor, above 0 to 1. ``threshold`` is hinge's alone, ``exponent`` its slope."""
    return DISCOUNTS[name](staleness, exponent, threshold)

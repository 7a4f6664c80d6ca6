"""How cost grows with size: exponents by least squares."""

from collections.abc import Sequence

import numpy as np

EXPONENTS = np.arange(0.5, 1.5, 0.001)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """p of cost = b size^p, by least squares of log cost over log size."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def with_start(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float, float]:
    """(a, b, p) of cost = a + b size^p, by least squares of relative errors.

    a and b are solved for, for each p from 0.5 to 1.5 in steps of 0.001.
    """
    size, cost = np.asarray(sizes, np.float64), np.asarray(costs, np.float64)
    found = []
    for p in EXPONENTS:
        terms = np.stack([1 / cost, size**p / cost], axis=1)
        (a, b), *_ = np.linalg.lstsq(terms, np.ones_like(cost))
        found.append((float(np.sum((terms @ (a, b) - 1) ** 2)), a, b, p))
    _, a, b, p = min(found)
    return float(a), float(b), float(p)

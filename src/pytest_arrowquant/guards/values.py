"""Guards of what is restored where: columns, levels, and the order of weights."""

import numpy as np

from ..arrays import Array
from ..case import Case, Finding
from ..kernels import structure

ORDER_SHARE = 0.25
INWARD = 0.01  # share of weights


def dead_columns(case: Case) -> Finding | None:
    """An input channel of at least median norm may not come back all zero."""
    dead = case.evidence.dead
    if dead is None:
        return None
    if not dead.any():
        return Finding("dead_columns", "<=", 0, 0)
    energy = np.zeros(dead.size)
    for _, rows in case.blocks.references():
        structure.column_energies(rows, energy)
    channels = (case.shape[1], -1)
    energy = energy.reshape(channels).sum(axis=1)
    silent: Array = np.asarray(dead.reshape(channels).all(axis=1))
    lost = np.flatnonzero((energy >= np.median(energy)) & (energy > 0) & silent)
    where = f"input channel {int(lost[0])}" if lost.size else ""
    return Finding("dead_columns", "<=", 0, int(lost.size), where)


def levels(case: Case) -> Finding | None:
    """At most 2^bits distinct values in a group, where the groups are known.

    Not where values were made of codes before our eyes: they are no more by construction.
    """
    if case.evidence.levels is None or case.bits is None:
        return None
    most, row, group = case.evidence.levels
    return Finding("levels", "<=", 2**case.bits, most, f"row {row}, group {group}")


def rounding(case: Case) -> Finding | None:
    """Codes are the nearest to the weights under their own parameters, whatever those are.

    value: the share, of values away from zero, whose weight is closer to a level of its group that
    is nearer to zero: as where scales are too large. Least squares without rounding anew leaves
    weights that are closer to a level further out, and few of these.
    """
    found = case.evidence.rounding
    if found is None or found.away == 0:
        return None
    return Finding("rounding", "<=", INWARD + 1 / found.away, found.inward / found.away)


def strays(case: Case) -> Finding | None:
    """No weight is a whole step nearer to another level of its group: a lost column or group."""
    found = case.evidence.rounding
    if found is None:
        return None
    where = f"first at row {found.where[0]}, column {found.where[1]}" if found.strays else ""
    return Finding("strays", "<=", 0, found.strays, where)


def order(case: Case) -> Finding | None:
    """Large steps along a row keep their direction: blocks and groups are where they belong.

    Of 4 bits and more; neither judged by outputs nor fed back.
    """
    if case.evidence.order is None:
        return None
    share, start = case.evidence.order
    row, column = divmod(start, case.weights.columns)
    where = f"from row {row}, column {column} on"
    return Finding("order", "<=", ORDER_SHARE, share, where)

"""One restored tensor held to an expectation, and what is kept of it once its arrays are gone."""

from dataclasses import dataclass, replace
from math import inf
from numbers import Integral
from typing import Any

import numpy as np

from .arrays import Array, as_floating
from .case import Case, grid_of
from .codes import Grid
from .errors import TensorError
from .expectation import Expectation
from .metrics import (
    Deviation,
    Metrics,
    Sums,
    as_inputs,
    deviation,
    outputs_of,
    restored_array,
    restored_values,
    stored_bytes,
)
from .row_blocks import RowBlocks
from .targets import Outcome, findings, incomplete

WORST_ROWS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """A quantized result with its values at hand, so that they are restored once."""

    values: Any
    nbytes: int | None
    grid: Grid | None

    @classmethod
    def of(cls, values: object, quantized: object) -> "Restored":
        """The values with the size and grid of what they were restored from, if it has any."""
        return cls(values, stored_bytes(quantized), grid_of(quantized))

    def dequantize(self) -> Any:
        """The values."""
        return self.values


@dataclass(frozen=True, slots=True)
class TensorResult:
    """What is kept of one tensor once its arrays are gone."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    sums: Sums
    outputs: Sums | None
    row_cosine_min: float
    row_sqnr_db_min: float
    nbytes: int | None
    outcomes: tuple[Outcome, ...]
    worst_rows: tuple[tuple[int, float, float], ...]
    problem: str = ""

    @property
    def passed(self) -> bool:
        """True where every bound holds for this tensor."""
        return all(outcome.passed for outcome in self.outcomes)

    @property
    def metrics(self) -> Metrics:
        """Its own metrics; none where it is not whole."""
        if self.problem:
            return Metrics()
        return Metrics.of(
            self.sums, self.row_cosine_min, self.row_sqnr_db_min, self.nbytes, self.outputs
        )


def examine(
    name: str,
    reference: object,
    restored: object,
    expectation: Expectation,
    inputs: object,
    nbytes: object,
    outputs: Deviation | None = None,
) -> TensorResult:
    """Hold one restored tensor to an expectation.

    outputs: what the layer's outputs deviate by, where more than the weight was quantized; else
    they are those of the restored weight on `inputs`.
    """
    w = as_floating(reference, f"reference of {name!r}")
    if not w.size:
        raise TensorError(f"reference of {name!r} has shape {w.shape}: no weight to judge")
    r = restored_values(restored, f"restored {name!r}")
    nbytes = stored_bytes(restored) if nbytes is None else _whole(nbytes)
    if r.shape != w.shape:
        problem = f"restored has shape {r.shape}, the reference {w.shape}"
        return _incomplete(name, w, nbytes, problem)
    tokens = None if inputs is None else as_inputs(inputs, w)
    if tokens is None and outputs is None and expectation.judge == "outputs":
        raise TensorError("judge='outputs' needs inputs: pass inputs=, (tokens, input channels)")
    if tokens is not None:
        r = restored_array(r, f"restored {name!r}")
    blocks = RowBlocks.of(w, r)
    case = Case.of(
        blocks, tokens, outputs, expectation.judge, expectation.bits, grid_of(restored), nbytes
    )
    if where := case.weights.not_finite(blocks, restored=False):
        raise TensorError(f"reference of {name!r} has {where}; every value must be finite")
    if where := case.weights.not_finite(blocks, restored=True):
        return _incomplete(name, w, nbytes, f"restored has {where}")
    if tokens is not None:
        case = replace(case, outputs=deviation(outputs_of(w, tokens), outputs_of(r, tokens)))
    outcomes = tuple(Outcome(finding, name) for finding in findings(case, expectation))
    return _result(name, case, outcomes)


def _result(name: str, case: Case, outcomes: tuple[Outcome, ...]) -> TensorResult:
    """What is kept of a case."""
    weights, reference = case.weights, case.blocks.reference
    cosines, sqnr_db = weights.row_cosines, weights.row_sqnr_db
    rows = np.argsort(sqnr_db, kind="stable")[:WORST_ROWS]
    worst = tuple((int(row), float(cosines[row]), float(sqnr_db[row])) for row in rows)
    return TensorResult(
        name, reference.shape, reference.dtype.name, weights.sums,
        case.outputs.sums if case.outputs else None,
        float(cosines.min()), float(sqnr_db.min()), case.nbytes, outcomes, worst,
    )  # fmt: skip


def _incomplete(name: str, w: Array, nbytes: int | None, problem: str) -> TensorResult:
    """The result of a tensor that is not whole."""
    outcome = Outcome(incomplete(problem), name)
    sums = Sums(weights=w.size, original_bytes=w.nbytes)
    return TensorResult(
        name, w.shape, w.dtype.name, sums, None, -1.0, -inf, nbytes, (outcome,), (), problem
    )


def _whole(nbytes: object) -> int:
    if isinstance(nbytes, bool) or not isinstance(nbytes, Integral) or nbytes < 1:
        raise TensorError(f"nbytes={nbytes!r} is not a whole number from 1")
    return int(nbytes)

"""One restored tensor held to an expectation, and what is kept of it once its arrays are gone."""

from dataclasses import dataclass
from math import inf
from numbers import Integral
from typing import Any

import numpy as np

from .arrays import Array, as_floating, first_non_finite, require_finite
from .case import Case
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
    row_minima,
    stored_bytes,
)
from .scheme import Scheme
from .targets import Outcome, findings, incomplete

WORST_ROWS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """A quantized result with its values at hand, so that they are restored once."""

    values: Any
    nbytes: int | None
    scheme: object

    @classmethod
    def of(cls, values: object, quantized: object) -> "Restored":
        """The values with the size and scheme of what they were restored from, if it has any."""
        return cls(values, stored_bytes(quantized), getattr(quantized, "scheme", None))

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
    require_finite(w, f"reference of {name!r}")
    if not w.size:
        raise TensorError(f"reference of {name!r} has shape {w.shape}: no weight to judge")
    r = as_floating(restored_array(restored), f"restored {name!r}")
    nbytes = stored_bytes(restored) if nbytes is None else _whole(nbytes)
    problem = _problem(w, r)
    if problem:
        outcome = Outcome(incomplete(problem), name)
        sums = Sums(weights=w.size, original_bytes=w.nbytes)
        return TensorResult(
            name, w.shape, w.dtype.name, sums, None, -1.0, -inf, nbytes, (outcome,), (), problem
        )
    weights = deviation(w, r)
    tokens = None if inputs is None else as_inputs(inputs, w)
    if tokens is not None:
        outputs = deviation(outputs_of(w, tokens), outputs_of(r, tokens))
    elif outputs is None and expectation.judge == "outputs":
        raise TensorError("judge='outputs' needs inputs: pass inputs=, (tokens, input channels)")

    scheme = getattr(restored, "scheme", None)
    known = scheme if isinstance(scheme, Scheme) else None
    case = Case(w, weights, tokens, outputs, expectation.judge, expectation.bits, known, nbytes)
    outcomes = tuple(Outcome(finding, name) for finding in findings(case, expectation))
    rows = np.argsort(weights.row_sqnr_db, kind="stable")[:WORST_ROWS]
    worst = tuple(
        (int(row), float(weights.row_cosines[row]), float(weights.row_sqnr_db[row])) for row in rows
    )
    return TensorResult(
        name, w.shape, w.dtype.name, weights.sums, outputs.sums if outputs else None,
        *row_minima(weights), nbytes, outcomes, worst,
    )  # fmt: skip


def _whole(nbytes: object) -> int:
    if isinstance(nbytes, bool) or not isinstance(nbytes, Integral) or nbytes < 1:
        raise TensorError(f"nbytes={nbytes!r} is not a whole number from 1")
    return int(nbytes)


def _problem(reference: Array, restored: Array) -> str:
    """Why the restored tensor is not whole; empty if it is."""
    if restored.shape != reference.shape:
        return f"restored has shape {restored.shape}, the reference {reference.shape}"
    if not np.isfinite(restored).all():
        return f"restored has {first_non_finite(restored)}"
    return ""

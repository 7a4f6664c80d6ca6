"""Conformance: one invariant held against a quantizer, on weights that hypothesis draws."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir, storage_directory
from hypothesis.errors import Flaky
from hypothesis.strategies import SearchStrategy

from . import strategies
from .arrays import Array
from .errors import InvariantBroken, QuantizerError
from .invariants import Invariant
from .scheme import rows_and_columns
from .traits import Traits, traits_of

SMALL, LARGE = 60, 8  # examples: adversarial, and like trained weights
NO_WEIGHT = np.ones(1, np.float32)  # for an invariant that has its own

Case = tuple[Array, Any]


def broken_by(quantizer: Any, bits: int, invariant: Invariant, seed: int = 0) -> str:
    """How a quantizer breaks an invariant, on the smallest weight found; empty where it holds.

    Without traces on disk. The same for the same seed, but that hypothesis also tries the constants
    of local modules that are loaded. A quantizer that raises breaks whatever it is tried for.
    """
    traits = traits_of(quantizer)
    for cases, examples in _cases(invariant, traits):
        try:
            _hold(quantizer, bits, invariant, cases, settings(examples), seed)
        except (InvariantBroken, QuantizerError) as error:
            return str(error)
    return ""


def settings(examples: int) -> hypothesis.settings:
    """Of a search that leaves nothing behind, and that no compiler's first call disturbs."""
    return hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )


def _hold(
    quantizer: Any,
    bits: int,
    invariant: Invariant,
    cases: SearchStrategy[Case],
    how: hypothesis.settings,
    seed: int,
) -> None:
    """Raise what the invariant raises, for the smallest case found."""
    seen: list[Exception] = []

    @hypothesis.seed(seed)
    @how
    @given(cases)
    def tried(case: Case) -> None:
        weight, calibration = case
        try:
            invariant.check(quantizer, weight, bits, calibration)
        except (InvariantBroken, QuantizerError) as error:
            seen.append(error)
            raise

    try:
        with _elsewhere():
            tried()
    except Flaky:
        raise InvariantBroken(f"{seen[-1]}\n  and on the same weight once more it held") from None


@contextmanager
def _elsewhere() -> Iterator[None]:
    """What hypothesis keeps on disk goes to a folder of this process, and with it."""
    before = storage_directory(intent_to_write=False).home_directory
    set_hypothesis_home_dir(_folder().name)
    try:
        yield
    finally:
        set_hypothesis_home_dir(before)


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="arrowquant-")


def _cases(invariant: Invariant, traits: Traits) -> list[tuple[SearchStrategy[Case], int]]:
    """Weights with calibration, and how many, for each kind of data that the invariant wants."""
    if invariant.data == "none":
        return [(st.just((NO_WEIGHT, None)), 1)]
    small = strategies.weights(traits.domain), SMALL
    large = strategies.realistic_weights(traits.domain), LARGE
    kinds = {"small": [small], "large": [large], "both": [small, large]}
    return [(_fed(weights, traits), many) for weights, many in kinds[invariant.data]]


def _fed(weights: SearchStrategy[Array], traits: Traits) -> SearchStrategy[Case]:
    """Each weight with inputs of its layer, where the quantizer needs them."""
    if not traits.needs_calibration:
        return weights.map(lambda weight: (weight, None))

    def fed(weight: Array) -> SearchStrategy[Case]:
        columns = rows_and_columns(weight.shape)[1]
        return st.tuples(st.just(weight), strategies.calibrations(columns))

    return weights.flatmap(fed)

"""What strategies draw: within the domain, all that breaks quantizers, and small once shrunk."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from hypothesis import Phase, given
from hypothesis.strategies import SearchStrategy

from pytest_arrowquant.arrays import FLOATS
from pytest_arrowquant.calibration import Calibration
from pytest_arrowquant.errors import QuantizerError, SchemeError, TensorError
from pytest_arrowquant.models.draw import KINDS
from pytest_arrowquant.scheme import Scheme
from pytest_arrowquant.strategies import (
    LAWS,
    calibrations,
    group_sizes,
    realistic_weights,
    schemes,
    weights,
)
from pytest_arrowquant.traits import Domain

ALONE = hypothesis.settings(database=None, derandomize=True)
DOMAINS = [
    Domain(),
    Domain(dtypes=("float16",)),
    Domain(dtypes=("bfloat16", "float64")),
    Domain(dimensions=(1,)),
    Domain(dimensions=(4, 3)),
    Domain(columns_multiple=3),
    Domain(columns_multiple=32),
    Domain(columns_multiple=256, dimensions=(2, 4)),
    Domain(smallest=1e-3, largest=1e3),
    Domain(smallest=0.1, largest=1.0),
    Domain(smallest=0.7, largest=0.8),
    Domain(dtypes=("float64",), smallest=0.7, largest=0.8),  # neither is a float32
    Domain(largest=0.01),
    Domain(largest=1e-6),
    Domain(smallest=5.0),
    Domain(dtypes=("bfloat16",), smallest=1.001, largest=300.7),
    Domain(dtypes=("float32", "float64"), smallest=1e30),
]


def drawn(strategy: SearchStrategy, examples: int) -> list:
    """So many examples under the default settings, health checks and deadline among them."""
    values = []

    @hypothesis.settings(ALONE, max_examples=examples, phases=[Phase.generate])
    @given(strategy)
    def collect(value):
        values.append(value)

    collect()
    return values


@cache
def adversarial() -> list[np.ndarray]:
    return drawn(weights(), 1500)


@cache
def realistic() -> list[np.ndarray]:
    return drawn(realistic_weights(), 150)


def as_rows(weight: np.ndarray) -> np.ndarray:
    wide = weight.astype(np.float64)
    return wide.reshape(1, -1) if weight.ndim == 1 else wide.reshape(weight.shape[0], -1)


def smallest_example(accepts: Callable[[np.ndarray], bool]) -> np.ndarray:
    return hypothesis.find(
        weights(), accepts, settings=hypothesis.settings(ALONE, max_examples=2000)
    )


def assert_within(weight: np.ndarray, domain: Domain) -> None:
    assert type(weight) is np.ndarray
    assert weight.dtype.name in domain.dtypes
    assert weight.ndim in domain.dimensions
    assert weight.flags.c_contiguous
    assert weight.flags.writeable
    assert as_rows(weight).shape[1] % domain.columns_multiple == 0
    magnitudes = np.abs(weight.astype(np.float64))
    assert np.isfinite(magnitudes).all()
    assert np.isfinite(weight.astype(np.float32)).all()
    nonzero = magnitudes[magnitudes > 0]
    assert (nonzero >= domain.smallest).all()
    assert (nonzero <= domain.largest).all()
    assert (weight.astype(np.float32)[weight != 0] != 0).all()


@pytest.mark.parametrize("domain", DOMAINS, ids=repr)
def test_weights_are_within_the_domain(domain: Domain):
    small, large = drawn(weights(domain), 100), drawn(realistic_weights(domain), 20)
    for weight in small + large:
        assert_within(weight, domain)
    for count, of in ((2, small), (1, large)):
        assert len({weight.dtype for weight in of}) >= min(count, len(domain.dtypes))
        assert len({weight.ndim for weight in of}) >= min(count, len(domain.dimensions))


@pytest.mark.parametrize("dtype", FLOATS)
def test_both_ends_of_a_domain_are_reached(dtype: str):
    """The ends are taken from the bits of the dtype: codes that are neighbours of those outside."""
    domain = Domain(dtypes=(dtype,), smallest=0.3, largest=77.7)
    values = np.concatenate([np.abs(as_rows(w)).ravel() for w in drawn(weights(domain), 150)])
    least, largest = values[values > 0].min(), values.max()
    kind = np.dtype(dtype)
    word = f"u{kind.itemsize}"
    below = (np.array([least], kind).view(word) - 1).view(kind)
    above = (np.array([largest], kind).view(word) + 1).view(kind)
    assert float(below[0]) < 0.3 <= least
    assert largest <= 77.7 < float(above[0])


@pytest.mark.parametrize(
    ("dtype", "least", "largest"),
    [  # IEEE 754; bfloat16 has the exponents of float32 and 7 bits; float64 is held to float32
        ("float16", 2.0**-24, 65504),
        ("bfloat16", 2.0**-133, (2 - 2.0**-7) * 2.0**127),
        ("float32", 2.0**-149, float(np.float32(3.4e38))),
        ("float64", 2.0**-149, 3.4e38),
    ],
)
def test_without_limits_the_dtype_is_the_limit(dtype: str, least: float, largest: float):
    values = np.concatenate(
        [np.abs(as_rows(w)).ravel() for w in adversarial() if w.dtype.name == dtype]
    )
    assert values[values > 0].min() == least
    assert values.max() == pytest.approx(largest, rel=1e-6)
    assert values.max() <= 3.4e38


def denormal(weight: np.ndarray) -> bool:
    name = "float32" if weight.dtype == np.float64 else weight.dtype.name
    magnitudes = np.abs(as_rows(weight))
    normal = float(ml_dtypes.finfo(np.dtype(name)).smallest_normal)
    return bool(((magnitudes > 0) & (magnitudes < normal)).any())


TIES = {
    "2 bits": ((-1, 1), (-2, 1), (0, 3)),
    "4 bits": ((-7, 7), (-8, 7), (0, 15)),
    "8 bits": ((-127, 127), (-128, 127), (0, 255)),
    "symmetric": ((-1, 1), (-7, 7), (-127, 127)),
    "lopsided": ((-2, 1), (-8, 7), (-128, 127)),
    "from zero": ((0, 3), (0, 15), (0, 255)),
}


def tied(*ends: tuple[int, int]) -> Callable[[np.ndarray], bool]:
    """A row from one outermost code to the other, times a power of two, with halves between."""

    def found(weight: np.ndarray) -> bool:
        for row, (low, high) in product(as_rows(weight), ends):
            unit = np.ptp(row) / (high - low)
            if unit > 0 and np.frexp(unit)[0] == 0.5:
                halves = 2 * row / unit
                whole = (halves == np.rint(halves)).all()
                if whole and (halves % 2 == 1).any() and row.min() == low * unit:
                    return True
        return False

    return found


def has_row(test: Callable[[np.ndarray], bool]) -> Callable[[np.ndarray], bool]:
    """Among rows that are not all so."""

    def found(weight: np.ndarray) -> bool:
        such = [bool(test(row)) for row in as_rows(weight)]
        return any(such) and not all(such)

    return found


def outlier(weight: np.ndarray) -> bool:
    """One number alone is at least 64 times as large as the others, which are not all 0."""
    ordered = np.sort(np.abs(as_rows(weight)), axis=None)
    return bool(ordered.size > 4 and 0 < 64 * ordered[-2] <= ordered[-1] and ordered[1] > 0)


def ragged(group: int) -> Callable[[np.ndarray], bool]:
    return lambda weight: as_rows(weight).shape[1] > group and as_rows(weight).shape[1] % group > 0


PATTERNS = {
    "one element": lambda weight: weight.size == 1,
    "all zero": lambda weight: not weight.any(),
    "zero row": has_row(lambda row: not row.any()),
    "constant": lambda weight: weight.size > 1 and np.ptp(as_rows(weight)) == 0 and weight.any(),
    "constant row": lambda weight: (
        any(np.ptp(row) == 0 and 0.01 < abs(row[0]) < 100 for row in as_rows(weight))
        and any(len(set(row)) > 2 for row in as_rows(weight))
    ),
    "minus zero": lambda weight: (np.signbit(weight) & (weight == 0)).any(),
    "all negative": lambda weight: weight.size > 1 and (weight < 0).all(),
    "signs in turn": lambda weight: (
        as_rows(weight).shape[1] > 2
        and (as_rows(weight)[:, 1:] * as_rows(weight)[:, :-1] < 0).all()
    ),
    "denormals": denormal,
    "only denormals": lambda weight: denormal(weight) and np.abs(as_rows(weight)).max() < 1e-6,
    "huge": lambda weight: np.abs(as_rows(weight)).max() > 1e38,
    "range beyond float32": lambda weight: np.ptp(as_rows(weight)) > 3.41e38,
    "outlier": outlier,
    "rows of unlike scale": lambda weight: (
        (peaks := np.abs(as_rows(weight)).max(axis=1)).min() > 0
        and peaks.max() >= 1000 * peaks.min()
    ),
    "ragged at 16": ragged(16),
    "ragged at 32": ragged(32),
    "ragged at 64": ragged(64),
    "whole groups of 16": lambda weight: as_rows(weight).shape[1] % 16 == 0,
    "fewer columns than 16": lambda weight: 1 < as_rows(weight).shape[1] < 16,
    "rows no multiple of 4": lambda weight: as_rows(weight).shape[0] % 4 > 0,
    "nine rows": lambda weight: as_rows(weight).shape[0] == 9,
    "odd mantissas": lambda weight: (as_rows(weight)[0] * 64 % 1 != 0).any(),
    **{f"ties, {kind}": tied(*ends) for kind, ends in TIES.items()},
    **{dtype: lambda weight, dtype=dtype: weight.dtype.name == dtype for dtype in FLOATS},
    **{f"{axes} axes": lambda weight, axes=axes: weight.ndim == axes for axes in (1, 2, 3, 4)},
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_is_reached(pattern: str):
    """In 1500 examples, and not by one lucky draw."""
    assert sum(bool(PATTERNS[pattern](weight)) for weight in adversarial()) >= 3


def test_examples_differ():
    assert len({(w.dtype.name, w.shape, w.tobytes()) for w in adversarial()}) > 1000
    assert len({(w.dtype.name, w.shape, w.tobytes()) for w in realistic()}) > 120


def test_the_simplest_weight_is_a_zero():
    weight = smallest_example(lambda weight: True)
    assert weight.dtype == np.float32
    assert weight.tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("accepts", "simplest"),
    [
        (lambda weight: weight.any(), [[1.0]]),
        (lambda weight: (weight < 0).any(), [[-1.0]]),
        (lambda weight: (weight.astype(np.float64) % 1 != 0).any(), [[0.5]]),
        (lambda weight: len(as_rows(weight)) == 2, [[0.0], [0.0]]),
        (lambda weight: weight.ndim == 4, [[[[0.0]]]]),
    ],
    ids=["nonzero", "negative", "fraction", "two rows", "four axes"],
)
def test_examples_shrink_to_the_simplest(accepts: Callable, simplest: list):
    weight = smallest_example(accepts)
    assert weight.dtype == np.float32
    assert weight.tolist() == simplest


def test_a_long_row_shrinks_to_the_shortest_such():
    weight = smallest_example(lambda weight: weight.shape[-1] > 64)
    assert weight.size == 65
    assert not weight.any()


def test_another_dtype_shrinks_to_its_zero():
    weight = smallest_example(lambda weight: weight.dtype.name == "bfloat16")
    assert weight.dtype.name == "bfloat16"
    assert weight.tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("accepts", "size"),
    [
        (lambda weight: len(as_rows(weight)) > 1 and (weight[0] != weight[1]).any(), 2),
        (lambda weight: len(np.unique(as_rows(weight))) >= 4, 8),
        (lambda weight: as_rows(weight).shape[1] > 16 and as_rows(weight)[-1, -1] != 0, 24),
        (lambda weight: (weight != 0).any() and (as_rows(weight) == 0).all(axis=1).any(), 2),
    ],
    ids=["unlike rows", "four numbers", "ragged tail", "a zero row"],
)
def test_examples_shrink_to_few_small_numbers(accepts: Callable, size: int):
    weight = smallest_example(accepts)
    assert weight.dtype == np.float32
    assert weight.size <= size
    assert set(np.abs(weight.ravel())) <= {0, 0.5, 1, 2, 3, 4}


def test_magnitudes_shrink_towards_one():
    huge = smallest_example(lambda weight: np.abs(as_rows(weight)).max() > 1e30)
    assert huge.size == 1
    assert abs(huge.item()) in (2.0**100, np.float32(3.4e38))
    unlike = smallest_example(outlier)
    assert unlike.size <= 8


def test_realistic_weights_are_large_and_of_many_laws():
    shapes = [as_rows(weight).shape for weight in realistic()]
    assert all(rows <= 64 and 64 <= columns <= 512 for rows, columns in shapes)
    assert all(rows >= 16 for rows, _ in shapes if rows != 1)
    assert max(rows * columns for rows, columns in shapes) > 16_000
    assert {weight.dtype.name for weight in realistic()} == set(FLOATS)
    assert {weight.ndim for weight in realistic()} == {1, 2, 3, 4}
    assert any(weight.ndim == 4 and weight.shape[2:] == (3, 3) for weight in realistic())
    for weight in realistic():
        rows = as_rows(weight)
        assert 0.3 < np.sqrt(np.mean(rows**2) * rows.shape[1]) < 10
        assert len(np.unique(rows)) > rows.size / 200


def kurtosis(values: np.ndarray) -> float:
    return float(np.mean(values**4) / np.mean(values**2) ** 2)


def test_laws_have_the_tails_that_they_should():
    """Kurtosis, by the textbook: Gaussian 3, uniform 9/5, Laplace 6; t of 5 degrees has 9."""
    shape = (64, 512)
    gauss, uniform, laplace, student, rows, columns, *kinds = (
        law(shape, np.random.default_rng(3)).astype(np.float64) for law in LAWS
    )
    assert kurtosis(gauss) == pytest.approx(3, rel=0.05)
    assert kurtosis(uniform) == pytest.approx(1.8, rel=0.05)
    assert kurtosis(laplace) == pytest.approx(6, rel=0.15)
    assert 5 < kurtosis(student) < 20
    of_rows, of_columns = (np.sort(np.sqrt(np.mean(rows**2, axis=1))), columns.std(axis=0))
    assert of_rows[-4:].min() > 6 > 1.3 > of_rows[:-4].max()
    assert (of_columns > 4).sum() == 32
    assert len(kinds) == len(KINDS)
    for law in kinds:
        assert law.shape == shape
        assert 0.3 < np.sqrt(np.mean(law**2)) < 2


def test_realistic_weights_shrink_to_the_smallest_gaussian():
    weight = hypothesis.find(realistic_weights(), lambda weight: True, settings=ALONE)
    assert weight.dtype == np.float32
    gaussian = np.random.default_rng((0, 0, 0, 0)).standard_normal((16, 64)) / 8
    np.testing.assert_array_equal(weight, gaussian.astype(np.float32))


def test_a_seed_gives_the_same_weights_again():
    assert [w.tobytes() for w in drawn(weights(), 50)] == [
        w.tobytes() for w in drawn(weights(), 50)
    ]


def test_schemes_are_all_there():
    every = set(drawn(schemes(), 300))
    assert every == {
        Scheme(bits, zero, size)
        for bits in (2, 4, 8)
        for zero in ("none", "integer", "float")
        for size in (4, 8, 16, 32, 64, 128, 256, "channel", "tensor")
    }
    assert {scheme.bits for scheme in drawn(schemes((4,)), 50)} == {4}
    assert hypothesis.find(schemes(), lambda _: True, settings=ALONE) == Scheme(2, "none", 4)
    assert hypothesis.find(group_sizes(), lambda _: True, settings=ALONE) == 4


@pytest.mark.parametrize("channels", [1, 2, 8, 130])
def test_calibrations(channels: int):
    examples = drawn(calibrations(channels), 60)
    for calibration in examples:
        assert isinstance(calibration, Calibration)
        assert calibration.inputs.dtype == np.float32
        assert calibration.inputs.shape[1] == channels
        assert len(calibration.inputs) >= 2 * channels
        assert np.isfinite(calibration.inputs).all()
        assert set(calibration.timesteps) == set(range(calibration.steps))
        calibration.require_channels((3, channels))
        dead = calibration.energies == 0
        assert dead.sum() <= (channels > 1)
    assert {calibration.steps for calibration in examples} == {1, 2, 3, 4}
    assert all(np.isfinite(some.factor().feedback).all() for some in examples[-5:])
    dead = [bool((calibration.energies == 0).any()) for calibration in examples]
    assert any(dead) == (channels > 1)
    assert not all(dead)


def test_calibration_inputs_are_correlated_with_outliers():
    """32 channels of 8 factors: without outliers, 8 directions hold most of the energy."""
    for calibration in drawn(calibrations(32), 60):
        scales = np.sqrt(calibration.energies)
        alive = calibration.inputs[:, scales > 0] / scales[scales > 0]
        energies = np.linalg.eigvalsh(alive.T @ alive)[::-1]
        assert energies[:8].sum() > 0.7 * energies.sum()
    peaks = [
        calibration.channel_peaks[0].max() / np.median(calibration.channel_peaks[0])
        for calibration in drawn(calibrations(32), 60)
    ]
    assert min(peaks) < 3
    assert max(peaks) > 5


def test_calibrations_shrink_to_one_plain_timestep():
    calibration = hypothesis.find(calibrations(64), lambda _: True, settings=ALONE)
    assert calibration.steps == 1
    assert calibration.inputs.shape == (132, 64)
    assert calibration.energies.min() > 0
    assert calibration.energies.max() < 10 * np.median(calibration.energies)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: weights("float32"), QuantizerError, "domain='float32' is not a Domain"),
        (lambda: realistic_weights(None), QuantizerError, "domain=None is not a Domain"),
        (lambda: schemes((3,)), SchemeError, r"bits=\(3,\) is not a tuple of some of 2, 4, 8"),
        (lambda: schemes(()), SchemeError, r"bits=\(\) is not a tuple of some of 2, 4, 8"),
        (lambda: schemes(4), SchemeError, "bits=4 is not a tuple of some of 2, 4, 8"),
        (lambda: calibrations(0), TensorError, "channels=0 is not a whole number of at least 1"),
        (lambda: calibrations(8.0), TensorError, "channels=8.0 is not a whole number"),
        (
            lambda: weights(Domain(smallest=1e5)),
            QuantizerError,
            r"no float16 lies between smallest=100000 and largest=3.4e\+38; leave 'float16' out",
        ),
        (
            lambda: realistic_weights(Domain(dtypes=("bfloat16",), smallest=1.001, largest=1.002)),
            QuantizerError,
            "no bfloat16 lies between smallest=1.001 and largest=1.002; leave 'bfloat16' out",
        ),
        (
            lambda: weights(Domain(dtypes=("float64",), largest=1e-60)),
            QuantizerError,
            "no float64 lies between smallest=0 and largest=1e-60",
        ),
    ],
)
def test_bad_arguments_are_errors_when_the_strategy_is_made(make, error, said):
    with pytest.raises(error, match=said):
        make()


def test_drawing_compiles_no_kernel():
    """So that no user's deadline pays for numba."""
    program = """
import pkgutil, importlib
from hypothesis import given, settings, strategies as st
from pytest_arrowquant import kernels
from pytest_arrowquant.strategies import calibrations, realistic_weights, schemes, weights

@settings(database=None, max_examples=20)
@given(st.tuples(weights(), realistic_weights(), schemes(), calibrations(8)))
def draw(drawn): pass

draw()
compiled = {}
for module in pkgutil.iter_modules(kernels.__path__, kernels.__name__ + "."):
    for name, thing in vars(importlib.import_module(module.name)).items():
        if hasattr(thing, "py_func"):
            compiled[f"{module.name}.{name}"] = len(thing.signatures)
assert sum(compiled.values()) == 0, compiled
print(len(compiled))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 10


def test_the_example_of_the_documentation(pytester: pytest.Pytester):
    page = Path(__file__).parent.parent / "docs" / "strategies.md"
    example = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    guard = "np.maximum(peaks / 7, np.finfo(np.float32).tiny)"
    assert guard in example
    pytester.makepyfile(example)
    pytester.runpytest("-q").assert_outcomes(passed=2)
    pytester.makepyfile(example.replace(guard, "(peaks / 7)"))
    ran = pytester.runpytest("-q", "-k", "half_a_step")
    ran.assert_outcomes(failed=1, deselected=1, warnings=None)
    ran.stdout.fnmatch_lines(["*weight=array([[][[]0.[]][]], dtype=float32)*"])

"""Hypothesis strategies: weights that break quantizers, weights of trained networks, and the rest.

Little is drawn for each: a shape, a few numbers, a seed. So examples come fast, and shrink to
small arrays of small whole numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil, floor, gcd, log2, prod
from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .arrays import Array, limits_of
from .calibration import Calibration
from .errors import QuantizerError, SchemeError, TensorError
from .models.draw import KINDS, Kind
from .models.draw import draw as draw_weight
from .scheme import GroupSize, Scheme, Zero, rows_and_columns
from .traits import Domain
from .vocabulary import WIDTHS

Shape = tuple[int, ...]
RowEdit = Callable[[Array], Array]
Law = Callable[[Shape, np.random.Generator], Array]

UNLIMITED = Domain()
SIMPLEST_FIRST = ("float32", "float64", "float16", "bfloat16")
LEAST_FLOAT32 = 2.0**-149  # float64 stays within the range of float32
GROUP_SIZES: tuple[GroupSize, ...] = (4, 8, 16, 32, 64, 128, 256, "channel", "tensor")
SEEDS = st.tuples(*4 * [st.integers(0, 255)])  # drawn so, few numbers are simpler than a seed


def weights(domain: Domain = UNLIMITED) -> SearchStrategy[Array]:
    """Small arrays of what quantizers stumble over: up to 9 rows of up to 140 columns or so.

    Drawn: dtype and shape, with ragged tails of groups of 16, 32 and 64; a short list of numbers
    repeated, or multiples of 1/2 that tie at a usual width, or noise; rows that are zero, constant,
    negated or of another magnitude; all of it scaled by a power of two, tiny (denormals) or huge;
    single numbers up to the ends of the domain, 0 and -0. Shrinks to few small whole numbers in
    float32, and at last to a single zero. Raises QuantizerError for what is no Domain, or for one
    that has no number of one of its dtypes.
    """
    spans = tuple((span, _edits(span)) for span in _spans(domain))
    few = _shapes(domain, rows=(1, 4), columns=(1, 8))
    many = _shapes(domain, rows=(1, 9), columns=(1, 140))
    return _weights(st.sampled_from(spans), few | many)


def realistic_weights(domain: Domain = UNLIMITED) -> SearchStrategy[Array]:
    """Arrays like trained weights: 16 to 64 rows of 64 to 512 columns or so.

    Drawn: dtype, shape, a law (those of the synthetic models; Gaussian, Student's t, Laplace and
    uniform, and with outlier rows or columns) and a seed. Shrinks to float32 of shape (16, 64),
    Gaussian, seed 0. Where usual weights lie outside of the domain, they are scaled by a power of
    two; the few beyond its ends are moved there. Raises QuantizerError as `weights` does.
    """
    shapes = _shapes(domain, rows=(16, 64), columns=(64, 512))
    return _realistic_weights(st.sampled_from(_spans(domain)), shapes)


def schemes(bits: tuple[int, ...] = WIDTHS) -> SearchStrategy[Scheme]:
    """Schemes of these widths, with each kind of zero and the group sizes of `group_sizes`.

    Shrinks to the first width, symmetric, groups of 4. Raises SchemeError for no width, or one
    that is not 2, 4 or 8.
    """
    if not isinstance(bits, tuple) or not bits or any(width not in WIDTHS for width in bits):
        raise SchemeError(f"bits={bits!r} is not a tuple of some of 2, 4, 8")
    return st.builds(Scheme, st.sampled_from(bits), st.sampled_from(get_args(Zero)), group_sizes())


def group_sizes() -> SearchStrategy[GroupSize]:
    """4, 8, ... 256 weights along a row, "channel" or "tensor"; shrinks to 4."""
    return st.sampled_from(GROUP_SIZES)


def calibrations(channels: int) -> SearchStrategy[Calibration]:
    """Inputs of a layer of so many channels: at least twice as many tokens, 1 to 4 timesteps.

    Drawn: a seed, the numbers of tokens, timesteps (each larger than the last) and outlier
    channels, and whether a channel is dead, unless it is the only one. Channels are correlated.
    Shrinks to seed 0, one timestep, no outliers, none dead. Raises TensorError for no channels.
    """
    if type(channels) is not int or channels < 1:
        raise TensorError(f"channels={channels!r} is not a whole number of at least 1")
    return _calibrations(channels)


@dataclass(frozen=True, slots=True)
class _Span:
    """The magnitudes that a dtype has within a domain, and what small numbers are multiples of."""

    dtype: str
    least: float
    largest: float

    @property
    def unit(self) -> float:
        """The power of two nearest to 1 that has room for tails below and 8-bit codes above."""
        low, high = log2(self.least), log2(self.largest)
        if high - low < 20:
            return float(2.0 ** floor((low + high) / 2))
        return float(2.0 ** min(max(0, ceil(low + 12)), floor(high - 8)))

    def hold(self, values: Array) -> Array:
        """The values as this dtype; what is not 0 and out of the span is moved to its ends."""
        wide = values.astype(np.float64)  # the ends may be no float32
        magnitudes = np.where(wide == 0, 0, np.clip(np.abs(wide), self.least, self.largest))
        return np.copysign(magnitudes, wide).astype(self.dtype)


def _spans(domain: Domain) -> tuple[_Span, ...]:
    if not isinstance(domain, Domain):
        raise QuantizerError(f"domain={domain!r} is not a Domain")
    return tuple(_span(name, domain) for name in SIMPLEST_FIRST if name in domain.dtypes)


def _inwards(end: float, dtype: np.dtype[Any], towards: float) -> float:
    """The number of the dtype next to `end`, on the side that lies in the domain."""
    with np.errstate(over="ignore"):
        nearest = np.array(end, dtype)
    rounded = float(nearest)
    if (rounded < end) if towards > end else (rounded > end):
        rounded = float(np.nextafter(nearest, np.array(towards, dtype)))
    return rounded


def _span(name: str, domain: Domain) -> _Span:
    dtype = np.dtype(name)
    limits = limits_of(dtype)
    smallest = max(domain.smallest, float(limits.smallest_subnormal), LEAST_FLOAT32)
    largest = min(domain.largest, float(limits.max))
    least, most = _inwards(smallest, dtype, np.inf), _inwards(largest, dtype, 0)
    if least > most:
        raise QuantizerError(
            f"no {name} lies between smallest={domain.smallest:g} and "
            f"largest={domain.largest:g}; leave {name!r} out of the domain's dtypes"
        )
    return _Span(name, least, most)


WINDOWS = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def _shapes(
    draw: st.DrawFn, domain: Domain, rows: tuple[int, int], columns: tuple[int, int]
) -> Shape:
    """Two axes before others; columns reach out of their range where a multiple is that large."""
    axes = draw(st.sampled_from(sorted(domain.dimensions, key=(2, 1, 3, 4).index)))
    # drawn for any number of axes, so that it can shrink by itself
    first, window = (draw(st.integers(*rows)),), draw(WINDOWS)[: max(axes - 2, 0)]
    step = domain.columns_multiple // gcd(domain.columns_multiple, prod(window))
    fewest, most = (limit / (step * prod(window)) for limit in columns)
    steps = draw(st.integers(max(1, ceil(fewest)), max(3, floor(most))))
    return *first[: axes - 1], step * steps, *window


# what small weights are made of: contents, then changes of rows, then a magnitude, then numbers

WHOLE = (0.0, *(sign * number for number in range(1, 9) for sign in (1.0, -1.0)))
SMALL = st.sampled_from((*WHOLE, *(number + 0.5 for number in WHOLE), -0.0))
COUNTS = st.integers(1, 8)
CODES = ((-1, 1), (-7, 7), (-127, 127), (-2, 1), (-8, 7), (-128, 127), (0, 3), (0, 15), (0, 255))
RUN = 16  # what is repeated after so many columns is in every group of a usual size


def _repeated(draw: st.DrawFn, rows: int, columns: int) -> Array:
    """One number everywhere, or a few small ones over and over."""
    numbers = [draw(SMALL) for _ in range(draw(COUNTS))]
    return np.resize(numbers, (rows, columns))


def _ties(draw: st.DrawFn, rows: int, columns: int) -> Array:
    """Multiples of 1/2 between the outermost codes of a width, with these in every group."""
    low, high = draw(st.sampled_from(CODES))
    halves = np.random.default_rng(draw(SEEDS)).integers(2 * low, 2 * high + 1, (rows, columns))
    halves[:, 1::RUN], halves[:, ::RUN] = 2 * low, 2 * high
    return np.divide(halves, 2)


def _noise(draw: st.DrawFn, rows: int, columns: int) -> Array:
    """Gaussian noise, of whole numbers or with 20 bits behind the point."""
    step = 2.0 ** -draw(st.sampled_from((0, 20)))
    noise = np.random.default_rng(draw(SEEDS)).standard_normal((rows, columns))
    return np.rint(noise / step) * step


CONTENTS = st.sampled_from((_repeated, _ties, _noise))
ROW_EDITS: tuple[RowEdit, ...] = (
    np.zeros_like,
    lambda row: np.full_like(row, row[0]),
    lambda row: -row,
    lambda row: row * 2.0**10,
    lambda row: row * 2.0**-10,
)
EDITED_ROWS = st.lists(st.tuples(st.integers(0, 8), st.sampled_from(ROW_EDITS)), max_size=2)
MAGNITUDES = st.sampled_from(("usual", "scaled", "tiny", "huge"))
SCALES, TINY_SCALES = st.integers(-24, 8), st.integers(0, 12)


def _magnitude(draw: st.DrawFn, peak: float, span: _Span) -> float:
    """What to multiply by: a power of two, so that ties stay ties, except up to the largest."""
    magnitude = draw(MAGNITUDES)
    if magnitude == "scaled":
        return span.unit * 2.0 ** draw(SCALES)
    if magnitude == "tiny":
        return span.least * 2.0 ** draw(TINY_SCALES)
    if magnitude == "huge":
        return span.largest / max(1.0, peak)
    return span.unit


Edits = SearchStrategy[list[tuple[int, int, float]]]


def _edits(span: _Span) -> Edits:
    """Rows, columns near the start or the end, and numbers: small ones, powers of two, the ends."""
    least, largest = floor(log2(span.least)), ceil(log2(span.largest))
    beyond = (largest - least) // 4  # what is held at the ends, where quantizers fail
    exponents = st.integers(least - beyond, largest + beyond)
    powers = exponents.map(lambda exponent: 2.0**exponent)
    numbers = SMALL.map(span.unit.__mul__) | powers | powers.map(float.__neg__)
    return st.lists(st.tuples(st.integers(0, 8), st.integers(-8, 8), numbers), max_size=3)


@st.composite
def _weights(
    draw: st.DrawFn, spans: SearchStrategy[tuple[_Span, Edits]], shapes: SearchStrategy[Shape]
) -> Array:
    span, edits = draw(spans)
    shape = draw(shapes)
    rows, columns = rows_and_columns(shape)
    values = draw(CONTENTS)(draw, rows, columns)
    for row, edit in draw(EDITED_ROWS):
        values[row % rows] = edit(values[row % rows])
    values *= _magnitude(draw, np.abs(values).max(), span)
    for row, column, number in draw(edits):
        values[row % rows, column % columns] = number
    return span.hold(values).reshape(shape)


# what large weights and inputs are drawn by

OUTLIER_GAIN = 8


def _of_kind(kind: Kind, shape: Shape, generator: np.random.Generator) -> Array:
    values: Array = draw_weight(shape, kind, generator) * rows_and_columns(shape)[1] ** 0.5
    return values


def _outliers(along: int, shape: Shape, generator: np.random.Generator) -> Array:
    """One row in 16, or (along axis 1) one input channel, is larger."""
    values = generator.standard_normal(shape)
    lines = np.moveaxis(values, along, 0)
    lines[generator.permutation(len(lines))[: ceil(len(lines) / 16)]] *= OUTLIER_GAIN
    return values


LAWS: tuple[Law, ...] = (
    lambda shape, generator: generator.standard_normal(shape),
    lambda shape, generator: generator.uniform(-1.0, 1.0, shape),
    lambda shape, generator: generator.laplace(size=shape),
    lambda shape, generator: generator.standard_t(5, shape),
    partial(_outliers, 0),
    partial(_outliers, 1),
    *(partial(_of_kind, kind) for kind in KINDS.values()),
)


@st.composite
def _realistic_weights(
    draw: st.DrawFn, spans: SearchStrategy[_Span], shapes: SearchStrategy[Shape]
) -> Array:
    span, shape, law = draw(spans), draw(shapes), draw(st.sampled_from(LAWS))
    at_least_2d = shape if len(shape) > 1 else (1, *shape)
    values = law(at_least_2d, np.random.default_rng(draw(SEEDS)))
    values /= rows_and_columns(at_least_2d)[1] ** 0.5
    return span.hold(values * span.unit).reshape(shape)


@st.composite
def _calibrations(draw: st.DrawFn, channels: int) -> Calibration:
    """A quarter as many hidden factors as channels, mixed, and noise."""
    generator = np.random.default_rng(draw(SEEDS))
    tokens, steps = 2 * channels + draw(st.integers(4, 32)), draw(st.integers(1, 4))
    outliers, dead = draw(st.integers(0, ceil(channels / 16))), draw(st.booleans())
    factors = ceil(channels / 4)
    mixing = generator.standard_normal((factors, channels)) / factors**0.5
    inputs = generator.standard_normal((tokens, factors)) @ mixing
    inputs += 0.5 * generator.standard_normal((tokens, channels))
    order = generator.permutation(channels)
    inputs[:, order[:outliers]] *= OUTLIER_GAIN
    if dead and channels > 1:
        inputs[:, order[-1]] = 0
    timesteps = np.arange(tokens) * steps // tokens
    return Calibration.of(inputs * (1 + timesteps[:, None]), timesteps)

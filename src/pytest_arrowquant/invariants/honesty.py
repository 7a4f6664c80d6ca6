"""Whether the bytes that a quantizer reports can hold what it restores."""

from math import e, inf, log2, pi
from typing import Any

import numpy as np

from ..metrics import stored_bytes
from ..traits import traits_of
from .attempt import Attempt, plainly
from .samples import columns_of, deviation, gaussian, inputs, uniform

ROWS, COLUMNS = 256, 256
TO_SPARE = 2.0  # bits a weight for scales, where the bytes are not given
CHANCE = 0.02  # bits: log2 of a mean square over 65536 weights is known to 0.004
LOSSLESS = 20.0  # bits a weight, which hold a float32 but for its last digits


@plainly
def bytes_honest(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """Shannon's lower bound: a mean squared error D takes h - log2(2 pi e D) / 2 bits a weight.

    h: the differential entropy of the weights, independent normal ones and uniform ones; weight,
    calibration: not used. No code of any kind does with fewer bits. Where the result gives no
    `nbytes`, its bits are the width and two to spare for scales, so a width that is only a label is
    found as well. Source: Shannon 1959; Cover & Thomas, theorem 10.3.2 and problem 10.8.
    """
    traits = traits_of(quantizer)
    columns = columns_of(traits.domain, COLUMNS)
    own = inputs(columns) if traits.by_outputs else None
    normal = gaussian(traits, ROWS, columns)
    entropy = log2(2 * pi * e * deviation(traits.domain) ** 2) / 2
    even, width = uniform(traits, ROWS, columns)
    for law, drawn, h in (("normal", normal, entropy), ("uniform", even, log2(width))):
        attempt = Attempt.on("bytes_honest", quantizer, drawn, bits, own)
        result, found = attempt.round_trip(drawn)
        with np.errstate(invalid="ignore", over="ignore"):
            error = float(np.square(found.astype(np.float64) - drawn.astype(np.float64)).mean())
        nbytes = stored_bytes(result)
        rate = bits + TO_SPARE if nbytes is None else 8 * nbytes / drawn.size
        needed = h - log2(2 * pi * e * error) / 2 if error else inf
        if needed > rate + CHANCE and rate < LOSSLESS:
            said = "no nbytes" if nbytes is None else f"nbytes={nbytes}"
            raise attempt.broken(
                f"{law} weights come back with an rms error of {error**0.5:.4g}, which takes at "
                f"least {needed:.4g} bits a weight; {said}, which is {rate:.4g}"
            )

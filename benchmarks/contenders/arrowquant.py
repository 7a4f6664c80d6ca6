"""This project: the arrays that come out are used again."""

from functools import partial
from typing import Any

import numpy as np

from pytest_arrowquant import Scheme, quantize, quantize_and_compare

from .work import Work

ZEROS: dict[str, Any] = {"symmetric": "none", "integer": "integer", "minimum": "float"}


def prepare(x: Any, bits: int, threads: int, zero: str, group: int) -> Work:
    """zero: "symmetric", "integer" or "minimum"."""
    scheme = Scheme(bits, ZEROS[zero], group)
    q = quantize(x, scheme, threads=threads)
    out = np.empty_like(x)
    return Work(
        {
            "quantize": partial(quantize, x, scheme, q, threads=threads),
            "dequantize": partial(q.dequantize, out, threads=threads),
            "compare": lambda: _result(q.compare(x, threads=threads)),
            "quantize-and-compare": lambda: _result(
                quantize_and_compare(x, scheme, threads=threads)
            ),
        },
        lambda: q.dequantize(out, threads=threads),
        q.nbytes,
    )


def _result(sums: Any) -> tuple[Any, Any, Any]:
    return sums[:, 0], sums[:, 2], sums[:, 3]

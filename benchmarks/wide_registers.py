"""How often the compiled kernels use the wide registers; prints it as JSON.

    NUMBA_CACHE_DIR=an/empty/folder python benchmarks/wide_registers.py

Kernels that are loaded from a cache have no listing, so the cache must be empty. Registers of 256
and 512 bits are ymm and zmm; an instruction counts where one of its operands is such.
"""

import json
import re
from typing import Any

import numpy as np

from pytest_arrowquant import Scheme, quantize, quantize_and_compare
from pytest_arrowquant.kernels import decode, encode

WIDTHS = (8, 4, 2)
LARGEST = {"largest magnitude": "vpmaxu[dq]", "largest value": "vpmaxs[dq]"}
TO_INTEGER = {"float to integer": "vcvtt?ps2dq"}
PACKED = {"bytes packed": r"vpmov[wdq]b|vpackus"}
UNPACKED = {"bytes unpacked": "vpmovzxb[wdq]"}
TO_FLOAT = {"integer to float": "vcvtdq2ps"}
ROUNDED = {"float to whole float": "vrndscaleps|vroundps"}
FLOATS = {"products of floats": r"v(mul|fn?m(add|sub)\d+)ps"}
DOUBLES = {
    "float to double": "vcvtps2pd",
    "arithmetic of doubles": r"v(mul|add|sub|fn?m(add|sub)\d+)pd",
}


NEEDED: dict[
    str, tuple[Any, dict[str, str]]
] = {  # what the inner loops cannot do without, as patterns of instructions
    "quantize": (encode.quantize, LARGEST | TO_INTEGER | PACKED),
    "dequantize": (decode.dequantize, UNPACKED | TO_FLOAT | FLOATS),
    "compare": (decode.compare, UNPACKED | TO_FLOAT | DOUBLES),
    "fit": (encode.fit, LARGEST),
    "compare_rounded": (decode.compare_rounded, ROUNDED | FLOATS | DOUBLES),
}


def compile_all() -> None:
    """Every kernel once, at every width."""
    x = np.ones((1, 64), np.float32)
    for bits in WIDTHS:
        q = quantize(x, Scheme(bits))
        q.dequantize()
        q.compare(x)
        quantize_and_compare(x, Scheme(bits))


def counts() -> dict[str, dict[str, int]]:
    """By kernel, how many instructions of each needed kind have a wide register."""
    compile_all()
    found = {}
    for name, (kernel, needed) in NEEDED.items():
        listing = "\n".join(kernel.inspect_asm().values())
        found[name] = {
            step: len(re.findall(rf"\t(?:{pattern})\t[^\n]*%[yz]mm", listing))
            for step, pattern in needed.items()
        }
    return found


if __name__ == "__main__":
    print(json.dumps(counts()))

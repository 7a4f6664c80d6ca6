"""How fast the kernels are, against numpy's copy, a pure read and a pure write of the same array.

    python benchmarks/kernel_speed.py [MIB]

For arrays of float32 of 64 x 64, 768 x 768 and MIB (64 by default: 4096 x 4096): every operation
at every width, kind of zero and group size, one thread, outputs reused. All are run by turns and
the median of each is taken; the table has how many times as fast as np.copyto an operation is,
and in brackets its roofline: as fast as it would be if it moved its bytes at the bandwidth of
np.copyto. (A copy also writes as much as it reads; what mostly reads can do better.)

First it asserts, on x86 with AVX2, that the compiled kernels work in registers of 256 or 512 bits:
it compiles into an empty cache, as those that are loaded from one have no listing.
"""

import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

FRESH = tempfile.TemporaryDirectory()
os.environ["NUMBA_CACHE_DIR"] = FRESH.name

import numba  # noqa: E402
import numpy as np  # noqa: E402

from pytest_arrowquant import Scheme, quantize  # noqa: E402
from pytest_arrowquant.kernels import decode, encode  # noqa: E402

WIDTHS, ZEROS, GROUP_SIZES = (8, 4, 2), ("none", "integer", "float"), (32, 64, 128)
ROUNDS = 9
WIDE = {  # what each kernel cannot do without, in wide registers
    "quantize": (encode.QUANTIZE, (r"vpmaxud", r"vpmaxsd", r"vcvtt?ps2dq")),
    "dequantize": (decode.DEQUANTIZE, (r"vcvtdq2ps",)),
    "compare": (decode.COMPARE, (r"vcvtdq2ps", r"vcvtps2pd", r"vfmadd\w+pd", r"vandpd|vpand")),
}


def assert_wide() -> None:
    """Every kernel has each of its instructions on ymm or zmm registers."""
    x = np.ones((1, 64), np.float32)
    for bits in WIDTHS:
        quantize(x, Scheme(bits)).compare(x)
        quantize(x, Scheme(bits)).dequantize()
    for name, (kernels, instructions) in WIDE.items():
        for bits, kernel in kernels.items():
            listing = "\n".join(kernel.inspect_asm().values())
            for instruction in instructions:
                wide = re.findall(rf"\t(?:{instruction})\t[^\n]*%[yz]mm", listing)
                assert wide, f"{name}_int{bits}: {instruction} on no ymm or zmm register"
    print("wide registers: " + ", ".join(f"{name} {list(WIDTHS)}" for name in WIDE))


def operations(x: Any) -> dict[tuple[Any, ...], tuple[Callable[[], Any], float]]:
    """What to run, and how many bytes it moves."""
    spare = np.empty_like(x)
    runs: dict[tuple[Any, ...], tuple[Callable[[], Any], float]] = {
        ("copy",): (lambda: np.copyto(spare, x), 2 * x.nbytes),
        ("read",): (lambda: x.max(), x.nbytes),
        ("write",): (lambda: spare.fill(1), x.nbytes),
    }
    for size in GROUP_SIZES:
        for zero in ZEROS:
            for bits in WIDTHS:
                scheme = Scheme(bits, zero, size)  # type: ignore[arg-type]
                q = quantize(x, scheme)
                key, moved = (size, zero, bits), x.nbytes + q.nbytes
                runs["quantize", *key] = (lambda s=scheme, q=q: quantize(x, s, q), moved)
                runs["dequantize", *key] = (lambda q=q: q.dequantize(spare), moved)
                runs["compare", *key] = (lambda q=q: q.compare(x), moved)
    return runs


def timed(runs: dict[tuple[Any, ...], tuple[Callable[[], Any], float]], calls: int) -> Any:
    """The median time of one call of each, run by turns."""
    times: dict[tuple[Any, ...], list[float]] = {key: [] for key in runs}
    for round_number in range(ROUNDS + 1):
        for key, (run, _) in runs.items():
            start = time.perf_counter()
            for _ in range(calls):
                run()
            if round_number:  # the first compiles
                times[key].append((time.perf_counter() - start) / calls)
    return {key: median(values) for key, values in times.items()}


def table(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    runs = operations(x)
    took = timed(runs, max(1, (1 << 20) // x.size))
    rates = {key: runs[key][1] / took[key] / 1e9 for key in runs}
    fixed = ", ".join(f"{k} {rates[(k,)]:.1f} GB/s" for k in ("copy", "read", "write"))
    print(f"\n{shape[0]} x {shape[1]}: {fixed}; copy {took[('copy',)] * 1e3:.4g} ms")
    print(f"{'operation':12}{'zero':9}{'group':>5}" + "".join(f"{b:>8} bits    " for b in WIDTHS))
    for operation in ("quantize", "dequantize", "compare"):
        for zero in ZEROS:
            for size in GROUP_SIZES:
                cells = ""
                for bits in WIDTHS:
                    key = (operation, size, zero, bits)
                    roof = runs[("copy",)][1] / runs[key][1]
                    cells += f"{took[('copy',)] / took[key]:>8.2f} ({roof:.2f})"
                print(f"{operation:12}{zero:9}{size:>5}{cells}")


if __name__ == "__main__":
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    print(f"{platform.machine()}, numpy {np.__version__}, numba {numba.__version__}")
    assert_wide()
    for shape in ((64, 64), (768, 768), (mib * 64, 4096)):
        table(shape)

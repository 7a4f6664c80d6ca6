"""How long GPTQ takes beside what it cannot do without: W @ H and one Cholesky factorisation.

    python benchmarks/gptq_speed.py [ROWS COLUMNS]        (1024 4096)

Medians of five rounds, all in one process and with numpy's own threads. The Hessian is given.
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from pytest_arrowquant.calibration import Calibration
from pytest_arrowquant.factor import factorize
from pytest_arrowquant.quantizers import Gptq, Mse, Rtn


def seconds(work: Callable[[], object], rounds: int = 5) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


def main(rows: int, columns: int) -> None:
    generator = np.random.default_rng(0)
    spread = np.arange(1, columns + 1) ** -0.5
    x = (generator.standard_normal((2 * columns, columns)) * spread).astype(np.float32)
    x = x[:, generator.permutation(columns)]
    hessian = Calibration.of(x).hessian + 0.01 * np.eye(columns)
    w = (0.02 * generator.standard_t(6, (rows, columns))).astype(np.float32)
    wide = w.astype(np.float64)
    Gptq().on_factor(w[:8, :64], 4, factorize(hessian[:64, :64].copy()))  # compiles

    product = seconds(lambda: wide @ hessian)
    cholesky = seconds(lambda: np.linalg.cholesky(hessian))
    factor = factorize(hessian)
    print(f"{rows} x {columns}: W @ H {product:.2f} s, Cholesky {cholesky:.2f} s")
    print(f"  factor, once a layer {seconds(lambda: factorize(hessian)):.2f} s")
    for grid in (Rtn(64), Mse(64)):
        quantizer = Gptq(grid)
        sweep = seconds(lambda q=quantizer: q.on_factor(w, 4, factor))  # type: ignore[misc]
        whole = seconds(lambda q=quantizer: q.on_factor(w, 4, factorize(hessian)))  # type: ignore[misc]
        ratio = whole / (product + cholesky)
        print(
            f"  {grid.name} grid: codes {sweep:.2f} s, with the factor {whole:.2f} s, "
            f"{ratio:.2f} x (W @ H + Cholesky)"
        )


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:3])) if len(sys.argv) > 2 else main(1024, 4096)

"""Output SQNR with each transform, on drawn layers: the tables of docs/transforms.md.

A layer of 768 channels and 256 outputs. Weights: Student's t of 8 degrees, rounded to nearest in
groups of 64. Inputs: Gaussian, channel scales exp(0.35 z), some channels larger; their spread
grows over 32 timesteps. Ranges and smoothing from 3072 tokens, decibels on 3072 others; medians of
three layers.
"""

from itertools import product
from math import log10
from statistics import median
from typing import Any

import numpy as np

from pytest_arrowquant.calibration import Calibration
from pytest_arrowquant.quantizers import Rtn
from pytest_arrowquant.transforms import ActivationQuantizer, Identity, Rotation, smooth

Array = np.ndarray[Any, Any]
CHANNELS, OUTPUTS, TOKENS, STEPS = 768, 256, 3072, 32
OUTLIERS = {"none": (0, 1.0), "4 x 20": (4, 20.0), "8 x 8": (8, 8.0)}
WIDTHS = [(8, 8), (4, 8), (4, 4)]


def inputs_of(outliers: tuple[int, float], factor: float, layer: int, seed: int) -> Calibration:
    """Tokens of one layer; its channel scales are the same for every seed."""
    shape, rng = np.random.default_rng([layer, 0]), np.random.default_rng([layer, seed])
    scales = np.exp(0.35 * shape.standard_normal(CHANNELS))
    scales[shape.permutation(CHANNELS)[: outliers[0]]] *= outliers[1]
    at = np.arange(TOKENS) * STEPS // TOKENS
    spread = factor ** (at / (STEPS - 1))
    return Calibration.of(rng.standard_normal((TOKENS, CHANNELS)) * scales * spread[:, None], at)


def moved(inputs: Calibration, transform: Any) -> Calibration:
    return Calibration(transform.inputs(inputs.inputs), inputs.timesteps, inputs.steps)


class Layer:
    """A weight, what it is calibrated on, and what it is judged on."""

    def __init__(self, outliers: tuple[int, float], factor: float, layer: int) -> None:
        draw = np.random.default_rng([layer, 9])
        self.weight = draw.standard_t(8, (OUTPUTS, CHANNELS)).astype(np.float32)
        self.calibration, self.held_out = (inputs_of(outliers, factor, layer, i) for i in (1, 2))

    def sqnr_db(self, transform: Any, bits: tuple[int, int], groups: Any, shrunk: bool) -> float:
        rows = transform.weight(self.weight)
        restored = Rtn().quantize(rows, bits[0]).dequantize()
        energies = np.square(rows, dtype=np.float64).sum(axis=0) if shrunk else None
        fitted = ActivationQuantizer.fit(
            moved(self.calibration, transform), bits[1], groups, energies
        )
        outputs = fitted.quantize(moved(self.held_out, transform)).astype(np.float64) @ restored.T
        want = self.held_out.inputs.astype(np.float64) @ self.weight.T
        return 10 * log10(np.square(want).sum() / np.square(outputs - want).sum())

    def smoothing(self, bits: tuple[int, int], groups: Any, powers_of_two: bool = False) -> Any:
        def quantize(rows: Array) -> Array:
            return Rtn().quantize(rows, bits[0]).dequantize()

        return smooth(
            self.weight, self.calibration, quantize, bits[1], groups, powers_of_two=powers_of_two
        )


def row(*cells: object) -> None:
    print("|", " | ".join(f"{x:.1f}" if isinstance(x, float) else str(x) for x in cells), "|")


def spatial_table() -> None:
    row("outlier channels", "bits", "plain", "smoothed", "powers of two", "rotated")
    row(*["---"] * 6)
    for (name, outliers), bits in product(OUTLIERS.items(), WIDTHS):
        found = []
        for layer in (Layer(outliers, 1, i) for i in range(3)):
            transforms = [
                *(Identity(), layer.smoothing(bits, "static")),
                *(layer.smoothing(bits, "static", True), Rotation(CHANNELS)),
            ]
            found.append([layer.sqnr_db(one, bits, "static", False) for one in transforms])
        row(name, f"W{bits[0]}A{bits[1]}", *map(median, zip(*found, strict=True)))


def time_table() -> None:
    kinds = ("static", 2, 4, 8, "step", "token")
    row("F", "bits", *kinds)
    row(*["---"] * 8)
    for factor, bits in product((1, 2, 4, 16), WIDTHS[::2]):
        layers = [Layer((0, 1.0), factor, i) for i in range(3)]
        found = [
            median(layer.sqnr_db(Identity(), bits, kind, False) for layer in layers)
            for kind in kinds
        ]
        row(factor, f"W{bits[0]}A{bits[1]}", *found)


def shrink_table() -> None:
    kinds = ("plain", "smoothed", "rotated")
    row(
        "outlier channels",
        "bits",
        *(f"{kind}, {end}" for kind in kinds for end in ("max", "shrunk")),
    )
    row(*["---"] * 8)
    for (name, outliers), bits in product(OUTLIERS.items(), WIDTHS):
        found = []
        for layer in (Layer(outliers, 1, i) for i in range(3)):
            transforms = [Identity(), layer.smoothing(bits, "static"), Rotation(CHANNELS)]
            found.append(
                [layer.sqnr_db(one, bits, "static", s) for one in transforms for s in (False, True)]
            )
        row(name, f"W{bits[0]}A{bits[1]}", *map(median, zip(*found, strict=True)))


if __name__ == "__main__":
    for table in (spatial_table, time_table, shrink_table):
        table()
        print()

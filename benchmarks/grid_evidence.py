"""Evidence for guards of floating formats and of error feedback: tables of docs/guards.md.

    python benchmarks/grid_evidence.py [checkpoint.safetensors ...]

Formats as in tests/float_formats.py; GPTQ for inputs in a few directions (eigenvalues i^-0.5, i^-1
and i^-2), with one channel in fifty twenty times larger.
"""

import sys
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from guard_evidence import TESTS, all_weights

from float_formats import FORMATS
from pytest_arrowquant import Gptq, Mse, Rtn
from pytest_arrowquant.calibration import Calibration
from pytest_arrowquant.case import grid_of
from pytest_arrowquant.examine import examine
from pytest_arrowquant.expectation import GUARD_NAMES, expect
from pytest_arrowquant.faults import FAULTS
from pytest_arrowquant.specimen import Specimen

GRIDS = [
    Rtn(32), Rtn(64, "integer"), Rtn(128, "integer"), Rtn("channel"), Rtn("channel", "integer"),
    Mse(64),
]  # fmt: skip


class OnGrid:
    """Restored values of something that says what grid they are on."""

    def __init__(self, restored, grid):
        self.restored, self.grid = restored, grid

    def dequantize(self):
        return self.restored


class Tally:
    """Findings by guard and case: how many, how many missed, and which came nearest."""

    def __init__(self):
        self.held, self.alarms, self.nearest = Counter(), Counter(), {}

    def add(self, case, weight, restored, grid, name) -> bool:
        held = expect({"bits": grid.bits}, {}, {}, None, "evidence")
        result = examine("w", weight, OnGrid(restored, grid), held, None, None)
        for outcome in result.outcomes:
            finding, key = outcome.finding, (outcome.finding.metric, case)
            self.held[key] += 1
            self.alarms[key] += not outcome.passed
            if finding.margin < self.nearest.get(key, (np.inf,))[0]:
                self.nearest[key] = (finding.margin, finding.value, finding.bound, name)
        return result.passed

    def show(self, metrics):
        print("| guard | case | held | alarms | nearest to its bound | bound there | on |")
        print("|---|---|---|---|---|---|---|")
        for key in sorted(self.held, key=lambda key: (metrics.index(key[0]), str(key[1]))):
            _, value, bound, name = self.nearest[key]
            counts = f"{self.held[key]} | {self.alarms[key]}"
            print(f"| {key[0]} | {key[1]} | {counts} | {value:.4g} | {bound:.4g} | {name} |")


METRICS = [
    "cosine", "complete", *GUARD_NAMES,
]  # fmt: skip


def floats(weights):
    tally = Tally()
    for (name, weight), (case, form) in product(weights.items(), FORMATS.items()):
        values = weight.astype(np.float32)
        tally.add(case, values, form.restored(values), form.grid, name)
    tally.show(METRICS)


def inputs(channels, decay):
    generator = np.random.default_rng(1)
    spread = np.arange(1, channels + 1) ** (-decay / 2)
    mixed = np.linalg.qr(generator.standard_normal((channels, channels)))[0]
    x = (generator.standard_normal((4 * channels, channels)) * spread) @ mixed
    x[:, generator.permutation(channels)[: channels // 50]] *= 20
    return Calibration.of(x.astype(np.float32))


def fed_back(weights):
    tally, struck, missed = Tally(), Counter(), Counter()
    for name, weight in weights.items():
        if weight.ndim > 2 or len(weight) < 16:
            continue
        for decay, act_order in product((0.5, 1.0, 2.0), (True, False)):
            factor = inputs(weight.shape[1], decay).factor(0.01, act_order)
            for grid, bits in product(GRIDS, (2, 4, 8)):
                q, _ = Gptq(grid, act_order=act_order).on_factor(weight, bits, factor)
                said = replace(grid_of(q), feedback=True)
                tally.add(f"{bits} bits", weight, q.dequantize(), said, name)
                if bits == 2 or decay != 1.0:
                    continue
                for fault, known in FAULTS.items():
                    broken = known.inject(Specimen.of(q))
                    if broken is not None:
                        struck[fault, bits] += 1
                        missed[fault, bits] += Tally().add(
                            "", weight, broken.dequantize(), said, name
                        )
    tally.show(METRICS)
    print("\n| fault | 4 bits | 8 bits |\n|---|---|---|")
    for fault in FAULTS:
        counts = [
            (struck[fault, bits] - missed[fault, bits], struck[fault, bits]) for bits in (4, 8)
        ]
        print(f"| {fault} | " + " | ".join(f"{seen} of {all_}" for seen, all_ in counts) + " |")


if __name__ == "__main__":
    everything = all_weights(
        [*map(Path, sys.argv[1:])] or sorted((TESTS / "data").glob("*.safetensors"))
    )
    floats(everything)
    print()
    fed_back(everything)

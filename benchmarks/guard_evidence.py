"""Evidence for the guards' bounds: false alarms and faults caught, as the tables of docs/guards.md.

    python benchmarks/guard_evidence.py [checkpoint.safetensors ...]

Every honest quantizer on every kind of weights must trip no guard. Faults where groups are known,
and in bare arrays; what selfcheck_evidence.py shows of built-in quantizers is not repeated.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from pytest_arrowquant import Hqq, Mse, R2q, Rtn, quantize
from pytest_arrowquant.checkpoints import open_checkpoint
from pytest_arrowquant.examine import TensorResult, examine
from pytest_arrowquant.expectation import expect
from pytest_arrowquant.faults import FAULTS
from pytest_arrowquant.models.draw import KINDS, draw
from pytest_arrowquant.quantizers import COMPACT
from pytest_arrowquant.scheme import Scheme
from pytest_arrowquant.specimen import Specimen
from pytest_arrowquant.vocabulary import WIDTHS

TESTS = Path(__file__).parents[1] / "tests"
SHAPE = (256, 512)
SIZES = (16, 32, 64, 128, "channel")
ZEROS = ("none", "integer", "float")
HONEST = [Quantizer(size, zero) for Quantizer in (Rtn, Mse) for zero in ZEROS for size in SIZES]
BROKEN = [quantizer for quantizer in HONEST if quantizer.group_size in (64, "channel")]
EVERY = 3  # of the weights every third is broken on purpose, or it takes hours


def honest(bits):
    """All that are honest at this width; those of BROKEN are broken on purpose as well."""
    others = [Hqq(size) for size in SIZES] + [COMPACT[bits]]
    if bits in R2q.bits:
        others += [R2q(size, mean=mean) for size in SIZES for mean in (False, True)]
    return HONEST + others


class Declared:
    """Restored values of a quantizer that says what its groups are."""

    def __init__(self, restored, honest):
        self.restored, self.scheme, self.nbytes = restored, honest.scheme, honest.nbytes

    def dequantize(self):
        return self.restored


def all_weights(paths):
    rng = np.random.default_rng(0)
    gauss = rng.standard_normal(SHAPE, np.float32) * np.float32(0.02)
    weights = {
        "gauss": gauss,
        "t5": (rng.standard_t(5, SHAPE) * 0.02).astype(np.float32),
        "t3": (rng.standard_t(3, SHAPE) * 0.02).astype(np.float32),
        "laplace": (rng.laplace(size=SHAPE) * 0.02).astype(np.float32),
        "rows x20": gauss * np.where(rng.random((256, 1)) < 0.02, 20, 1).astype(np.float32),
        "elements x15": gauss * np.where(rng.random(SHAPE) < 0.001, 15, 1).astype(np.float32),
        **{name: draw(SHAPE, kind, rng) for name, kind in KINDS.items()},
        "convolution 3x3": draw((128, 64, 3, 3), KINDS["convolution"], rng),
    }
    for path in paths:
        for tensor in open_checkpoint(path).quantizable:
            weights[f"{path.stem}:{tensor.name}"] = tensor.weight
    return weights


def judged(weight, restored, bits) -> TensorResult:
    expectation = expect({"bits": bits}, {}, {}, None, "evidence")
    return examine("w", weight, restored, expectation, None, None)


def false_alarms(weights):
    held, alarms, closest, named = Counter(), Counter(), {}, Counter()
    for name, weight in weights.items():
        for bits in WIDTHS:
            for quantizer in honest(bits):
                q = quantizer.quantize(weight, bits)
                for restored in (q, q.dequantize()):
                    for outcome in judged(weight, restored, bits).outcomes:
                        finding = outcome.finding
                        key = (finding.metric, bits)
                        held[key] += 1
                        if not outcome.passed:
                            alarms[key] += 1
                            named[(*key, quantizer.name, q.scheme.zero, name)] += 1
                        if finding.margin < closest.get(key, (np.inf,))[0]:
                            closest[key] = (finding.margin, finding.value, finding.bound, name)
    print("| guard | bits | held | alarms | nearest to its bound | bound there | on |")
    print("|---|---|---|---|---|---|---|")
    for key in sorted(held):
        _, value, bound, name = closest[key]
        counts = f"{held[key]} | {alarms[key]}"
        print(f"| {key[0]} | {key[1]} | {counts} | {value:.4g} | {bound:.4g} | {name} |")
    print("\nalarms by quantizer:", Counter(key[:4] for key in named.elements()))


def int8_as_int2(weight):
    """256 levels: what an INT2 that is only a label restores."""
    return quantize(weight, Scheme(8)).dequantize()


def faults(weights):
    injected, missed, names = Counter(), Counter(), {}
    for name, weight in [*weights.items()][::EVERY]:
        for bits in WIDTHS:
            for quantizer in BROKEN:
                q = quantizer.quantize(weight, bits)
                specimen = Specimen.of(q)
                for fault in FAULTS:
                    struck = FAULTS[fault].inject(specimen)
                    if struck is None:
                        continue
                    broken = struck.dequantize()
                    for known, restored in ((True, Declared(broken, q)), (False, broken)):
                        key = (fault, bits, known)
                        injected[key] += 1
                        if judged(weight, restored, bits).passed:
                            missed[key] += 1
                            names.setdefault(key, set()).add(name)
    print("\n| fault | 4 bits | 4 bits, bare | 8 bits | 8 bits, bare | 2 bits |")
    print("|---|---|---|---|---|---|")
    for fault in FAULTS:
        keys = [
            (fault, 4, True),
            (fault, 4, False),
            (fault, 8, True),
            (fault, 8, False),
            (fault, 2, True),
        ]
        cells = [f"{injected[key] - missed[key]} of {injected[key]}" for key in keys]
        print(f"| {fault} | {' | '.join(cells)} |")
    for key, where in sorted(names.items()):
        if key[1] > 2:
            print(key, sorted(where))
    fooled = [
        name for name, weight in weights.items() if judged(weight, int8_as_int2(weight), 2).passed
    ]
    print(
        f"\n256 levels passed off as INT2: caught {len(weights) - len(fooled)} of {len(weights)}",
        fooled,
    )


if __name__ == "__main__":
    everything = all_weights(
        [*map(Path, sys.argv[1:])] or sorted((TESTS / "data").glob("*.safetensors"))
    )
    false_alarms(everything)
    faults(everything)

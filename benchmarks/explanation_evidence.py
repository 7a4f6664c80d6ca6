"""Evidence for explanations: how often the injected fault is named, as docs/explanations.md has it.

    python benchmarks/explanation_evidence.py [checkpoint.safetensors ...]

Every fault of the table in every kind of weights; and damage that is none of them.
"""

import sys
from collections import Counter
from pathlib import Path
from time import perf_counter

import numpy as np
from guard_evidence import TESTS, all_weights

from pytest_arrowquant import Mse, Rtn
from pytest_arrowquant.examine import examine
from pytest_arrowquant.expectation import expect
from pytest_arrowquant.explain import explain
from pytest_arrowquant.faults import TABLE
from pytest_arrowquant.models.draw import KINDS, draw
from pytest_arrowquant.specimen import Specimen
from pytest_arrowquant.vocabulary import WIDTHS

sys.path.insert(0, str(TESTS))

from test_explain import UNKNOWN

LEAST_ROWS, MOST = 16, (256, 512)
QUANTIZERS = [Rtn(), Rtn(32, "integer"), Rtn("channel"), Mse(), Mse(64, "none"), Mse(32, "integer")]


def named(weights, bits):
    """Counters by fault: injected, failed by the default targets, named right; the others."""
    expectation = expect({"bits": bits}, {}, {}, None, "evidence")
    injected, failed, right, wrong = Counter(), Counter(), Counter(), Counter()
    for index, (name, weight) in enumerate(weights.items()):
        rng = np.random.default_rng(index)
        for turn in (index, index + 3):
            quantizer = QUANTIZERS[turn % len(QUANTIZERS)]
            specimen, seen = Specimen.of(quantizer.quantize(weight, bits)), set()
            cases = [(fault.name, fault.inject(specimen)) for fault in TABLE]
            cases += [(damage.__name__, damage(specimen, rng)) for damage in UNKNOWN]
            cases.append(("nothing", specimen))
            for fault, broken in cases:
                if broken is None or (values := broken.restore().tobytes()) in seen:
                    continue  # cannot befall it, or is the same as another here
                seen.add(values)
                injected[fault] += 1
                if examine("w", weight, broken, expectation, None, None).passed:
                    continue
                failed[fault] += 1
                found = explain(weight, broken, expectation)
                said = found.fault if found else None
                expected = fault if fault in {known.name for known in TABLE} else None
                right[fault] += said == expected
                if said != expected:
                    wrong[fault, said, name] += 1
    return injected, failed, right, wrong


def table(weights):
    found = {bits: named(weights, bits) for bits in WIDTHS}
    print("| fault | " + " | ".join(f"{bits} bits" for bits in WIDTHS) + " |")
    print("|---|" + "---|" * len(WIDTHS))
    for fault in found[2][0] | found[4][0]:
        cells = [
            f"{right[fault]} of {failed[fault]} ({injected[fault]})"
            for injected, failed, right, _ in found.values()
        ]
        print(f"| {fault} | " + " | ".join(cells) + " |")
    for bits, (injected, failed, right, wrong) in found.items():
        known = [fault.name for fault in TABLE]
        sums = [sum(counter[fault] for fault in known) for counter in (right, failed, injected)]
        print(f"{bits} bits: {sums[0]} of {sums[1]} that fail, of {sums[2]} injected", wrong)


def seconds():
    """A matrix of 4096 x 4096: explained, and not."""
    weight = draw((4096, 4096), KINDS["attention_qk"], np.random.default_rng(0))
    expectation = expect({"bits": 4}, {}, {}, None, "evidence")
    specimen = Specimen.of(Rtn(128, "integer").quantize(weight, 4))
    broken = {fault.name: fault.inject(specimen) for fault in TABLE}
    broken["no known cause"] = UNKNOWN[2](specimen, np.random.default_rng(1))
    for name, one in broken.items():
        if one is not None:
            begin = perf_counter()
            explain(weight, one, expectation)
            print(f"{name}: {perf_counter() - begin:.2f} s")


if __name__ == "__main__":
    paths = [*map(Path, sys.argv[1:])] or sorted((TESTS / "data").glob("*.safetensors"))
    everything = {
        name: weight[: MOST[0], : MOST[1]]
        for name, weight in all_weights(paths).items()
        if weight.shape[0] >= LEAST_ROWS
    }
    table(everything)
    seconds()

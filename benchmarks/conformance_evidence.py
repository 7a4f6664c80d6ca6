"""Evidence that the invariants accuse no built-in quantizer: over seeds, and how long it takes.

    python benchmarks/conformance_evidence.py [SEEDS]

A line a quantizer and width: how many invariants are asked, in how many seeds each was broken.
"""

import sys
import time
from collections import Counter

from pytest_arrowquant.conformance import broken_by
from pytest_arrowquant.invariants import applicable
from pytest_arrowquant.quantizers import COMPACT, QUANTIZERS, Mse, Rtn

MORE = {
    "rtn integer": Rtn(zero="integer"),
    "rtn channel": Rtn("channel"),
    "mse none": Mse(zero="none"),
    "mse integer": Mse(zero="integer"),
    "mse 32": Mse(32),
}


def main(seeds):
    quantizers = {name: make() for name, make in QUANTIZERS.items()} | MORE
    print("| quantizer | bits | invariants | broken, of", seeds, "seeds | seconds a seed |")
    print("|---|---|---|---|---|")
    for name, quantizer in quantizers.items():
        for bits in quantizer.bits:
            report(name, quantizer, bits, seeds)
    for bits, quantizer in COMPACT.items():
        report("COMPACT", quantizer, bits, seeds)


def report(name, quantizer, bits, seeds):
    broken, start = Counter(), time.perf_counter()
    asked = applicable(quantizer)
    for seed in range(seeds):
        for invariant in asked:
            if message := broken_by(quantizer, bits, invariant, seed):
                broken[invariant.name] += 1
                print(message, file=sys.stderr)
    seconds = (time.perf_counter() - start) / seeds
    lacking = getattr(quantizer, "lacks", {})
    said = ", ".join(
        f"{key} {count}{' (declared)' if key in lacking else ''}" for key, count in broken.items()
    )
    print(f"| {name} | {bits} | {len(asked)} | {said or '-'} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)

"""Evidence for the self-check: which faults the default targets and guards miss, and where.

    python benchmarks/selfcheck_evidence.py [checkpoint.safetensors ...]

Of every family of synthetic models the first layer of each kind, of every checkpoint all that is
quantizable; the first rows of each, 262144 weights at most. GPTQ is calibrated and judged by the
outputs of its layer, where that has at most 1024 input channels.
"""

import sys
from collections import Counter, defaultdict
from pathlib import Path
from time import perf_counter

import numpy as np
from guard_evidence import TESTS

from pytest_arrowquant import Gptq, Hqq, Mse, R2q, Rtn
from pytest_arrowquant.arrays import as_floating
from pytest_arrowquant.checkpoints import open_checkpoint
from pytest_arrowquant.examine import examine
from pytest_arrowquant.expectation import expect
from pytest_arrowquant.faults import FAULTS
from pytest_arrowquant.models import FAMILIES, synthetic_model
from pytest_arrowquant.quantizers import COMPACT
from pytest_arrowquant.scheme import rows_and_columns
from pytest_arrowquant.selfcheck import selfcheck
from pytest_arrowquant.vocabulary import WIDTHS

MOST_WEIGHTS, MOST_CHANNELS = 1 << 18, 1024
PLAIN = [Rtn(64, "none"), Rtn(64, "integer"), Rtn(64, "float"), Rtn("channel"), Mse(), Hqq()]
FED = [Gptq(), Gptq(Rtn(64, "integer")), Gptq(Rtn(128, "none"), act_order=False)]


def cut(weight):
    """The first rows."""
    columns = rows_and_columns(weight.shape)[1]
    return weight[: max(1, MOST_WEIGHTS // columns)] if weight.ndim > 1 else weight


def tensors(paths):
    """(name, weight, layer or None) of all that is looked at."""
    for family in FAMILIES:
        kinds = set()
        for layer in synthetic_model(family):
            if layer.kind not in kinds or layer.shape[0] < 16:
                kinds.add(layer.kind)
                yield f"{family}:{layer.name}", cut(layer.weight), layer
    for path in paths:
        for tensor in open_checkpoint(path).quantizable:
            yield f"{path.stem}:{tensor.name}", cut(tensor.weight), None


def results(weight, layer, bits):
    """(label, quantized, expectation, inputs) of every quantizer."""
    held = expect({"bits": bits}, {}, {}, None, "evidence")
    for quantizer in (*PLAIN, COMPACT[bits], *([R2q()] if bits in R2q.bits else [])):
        label = f"{quantizer.name} {getattr(quantizer, 'zero', '')} {quantizer.group_size}"
        if quantizer is COMPACT[bits]:
            label = "compact"
        yield label, quantizer.quantize(weight, bits), held, None
    columns = rows_and_columns(weight.shape)[1]
    if layer is None or not layer.takes_inputs or columns > MOST_CHANNELS:
        return
    held = expect({"bits": bits, "judge": "outputs"}, {}, {}, None, "evidence")
    calibration, held_out = layer.calibration, layer.held_out.inputs
    for quantizer in FED:
        label = f"gptq {quantizer.grid.name} {quantizer.grid.zero}"
        yield label, quantizer.quantize(weight, bits, calibration), held, held_out


def main(paths):
    injected, missed, labels = Counter(), Counter(), {}
    where = defaultdict(Counter)
    alarms, checked, start = Counter(), Counter(), perf_counter()
    for name, weight, layer in tensors(paths):
        values = np.asarray(as_floating(weight, name))
        for bits in WIDTHS:
            for label, q, held, inputs in results(values, layer, bits):
                labels[label] = None
                checked[bits, label] += 1
                whole = examine(name, values, q, held, inputs, None)
                if not whole.passed:
                    wrong = ",".join(o.finding.metric for o in whole.outcomes if not o.passed)
                    alarms[bits, label, wrong, name] += 1
                    continue
                found = selfcheck(name, values, q, held, inputs)
                injected.update((bits, fault, label) for fault in found.injected)
                missed.update((bits, fault, label) for fault in found.missed)
                for fault in found.missed:
                    where[bits, fault][f"{label} of {name}"] += 1
        print(f"{name} {values.shape}: {perf_counter() - start:.0f} s", file=sys.stderr)
    for bits in WIDTHS:
        show(bits, injected, missed, list(labels), checked)
        for fault in FAULTS if bits > 2 else ():
            for place in where[bits, fault]:
                print(f"missed at {bits} bits: {fault}: {place}")
    print("\nhonest ones accused:")
    for key in alarms:
        print(*key, sep=" | ")


def show(bits, injected, missed, labels, checked):
    """The table of a width: missed of injected."""
    labels = [label for label in labels if (bits, label) in checked]
    print(f"\n### {bits} bits, missed of injected\n")
    print("| fault | " + " | ".join(labels) + " |\n|---|" + "---|" * len(labels))
    for fault in FAULTS:
        cells = [
            f"{missed[bits, fault, label]} of {injected[bits, fault, label]}"
            if injected[bits, fault, label]
            else ""
            for label in labels
        ]
        if any(cells):
            print(f"| {fault} | {' | '.join(cells)} |")
    mine = [key for key in injected if key[0] == bits]
    print(
        f"\nmissed {sum(missed[key] for key in mine)} of {sum(injected[key] for key in mine)}; "
        f"{sum(n for key, n in checked.items() if key[0] == bits)} results checked"
    )


if __name__ == "__main__":
    main([*map(Path, sys.argv[1:])] or sorted((TESTS / "data").glob("*.safetensors")))

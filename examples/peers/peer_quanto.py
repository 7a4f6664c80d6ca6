"""The quantizers of `optimum-quanto`: qint2 and qint4 in groups, qint8 by row."""

from optimum.quanto import (
    AbsmaxOptimizer,
    HqqOptimizer,
    MaxOptimizer,
    qint2,
    qint4,
    qint8,
    quantize_weight,
)
from stored import Stored, bytes_of

from pytest_arrowquant import Domain, roundtrip

GROUP = 64  # a weight that is one group has a scale for each weight: never one alone


def _by_group(optimizer):
    def stored(weight, bits):
        qtype = {2: qint2, 4: qint4}[bits]
        scale, shift = optimizer(weight, qtype, 0, GROUP)
        kept = quantize_weight(weight, qtype, 0, scale, shift, GROUP, optimized=False)
        packed = weight.numel() * bits // 8
        return Stored(kept.dequantize, packed + bytes_of(scale, shift))

    return stored


def _by_row(weight):
    scale = AbsmaxOptimizer()(weight, qint8, 0)
    kept = quantize_weight(weight, qint8, 0, scale)
    return Stored(kept.dequantize, bytes_of(kept._data, scale))


NO_ZERO = "at 2 bits no code is 0, so a row with outliers may be worse than zeros"
OF_TENSOR = "the search stops by the mean error of the whole tensor"
GROUPS = Domain(dimensions=(2, 3, 4), columns_multiple=2 * GROUP, smallest=2.0**-14, largest=3e4)
QUANTIZERS = [
    roundtrip(
        "quanto-max",
        _by_group(MaxOptimizer()),
        (2, 4),
        framework="torch",
        granularity=GROUP,
        properties=(
            "idempotent",
            "monotone",
            "nested_widths",
            "permutation_equivariant",
            "scale_equivariant",
        ),
        lacks={"accurate": NO_ZERO},
        domain=GROUPS,
    ),
    roundtrip(
        "quanto-hqq",
        _by_group(HqqOptimizer()),
        (2, 4),
        framework="torch",
        granularity=GROUP,
        properties=("monotone",),
        lacks={"rows_independent": OF_TENSOR, "groups_independent": OF_TENSOR},
        domain=GROUPS,
    ),
    roundtrip(
        "quanto-int8",
        _by_row,
        8,
        framework="torch",
        granularity="channel",
        properties=(
            "idempotent",
            "monotone",
            "permutation_equivariant",
            "scale_equivariant",
            "zero_kept",
        ),
        lacks={"accurate": "bfloat16 is divided in bfloat16, whose 8 bits the codes need"},
        domain=Domain(dimensions=(2, 3, 4), smallest=2.0**-7, largest=6e4),
    ),
]

"""The weight-only quantizers of `torchao` on a CPU: int2 and int4 in groups, int8 by row."""

import torch
from stored import Stored, bytes_of
from torchao.quantization import (
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    PerGroup,
    quantize_,
)

from pytest_arrowquant import Domain, roundtrip

GROUP = 32


def _stored(weight, config):
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = torch.nn.Parameter(weight, requires_grad=False)
    quantize_(linear, config)
    kept = linear.weight
    return Stored(kept.dequantize, bytes_of(kept.qdata, kept.scale, kept.zero_point))


def _by_group(weight, bits):
    dtype = getattr(torch, f"int{bits}")
    return _stored(weight, IntxWeightOnlyConfig(dtype, PerGroup(GROUP)))


def _by_row(weight):
    return _stored(weight, Int8WeightOnlyConfig())


OF_BOTH = ("monotone", "permutation_equivariant", "scale_equivariant", "zero_kept")
QUANTIZERS = [
    roundtrip(
        "torchao-intx",
        _by_group,
        (2, 4),
        framework="torch",
        granularity=GROUP,
        properties=OF_BOTH,
        domain=Domain(  # a float16 scale is at least 2^-14; codes of int2 reach 4/3 of the largest
            ("bfloat16", "float32"), (2,), GROUP, smallest=2.0**-118, largest=2.5e38
        ),
    ),
    roundtrip(
        "torchao-int8",
        _by_row,
        8,
        framework="torch",
        granularity="channel",
        properties=OF_BOTH,
        domain=Domain(  # rows of one weight raise; float16 is divided in float16
            ("float16", "bfloat16", "float32"), (2,), 2, smallest=2.0**-7, largest=65000.0
        ),
    ),
]

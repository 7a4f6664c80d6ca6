"""The contenders: this project, plain numpy, and the peers of the extra [peers].

sqnr_db has what a format reaches on normal weights: of integers and of NF4 by code in float64 that
follows the format's definition, on a million weights and more; of bitsandbytes' dynamic table and
of HQQ's search what those packages reached when they were first measured.
"""

from .work import SIZES, Contender, Work

__all__ = ["CONTENDERS", "OPERATIONS", "SIZES", "Contender", "Work"]

OPERATIONS = ("quantize", "dequantize", "compare", "quantize-and-compare")

SYMMETRIC = {  # by group size
    32: {8: 45.44, 4: 20.27, 2: 8.83},
    64: {8: 44.54, 4: 19.37, 2: 8.09},
    128: {8: 43.80, 4: 18.63, 2: 7.47},
}
INTEGER = {
    32: {8: 46.47, 4: 21.86, 2: 7.83},
    64: {8: 45.43, 4: 20.82, 2: 6.81},
    128: {8: 44.57, 4: 19.96, 2: 5.98},
}
MINIMUM = {
    32: {8: 46.75, 4: 22.14, 2: 8.11},
    64: {8: 45.57, 4: 20.96, 2: 6.94},
    128: {8: 44.64, 4: 20.03, 2: 6.02},
}
ZEROS = {"symmetric": SYMMETRIC, "integer": INTEGER, "minimum": MINIMUM}
SEARCHED = {8: 45.85, 4: 21.30, 2: 7.25}
NOT_THE_SMALLEST = SIZES[1:]
AT_SIDES = (768, 4096)


def _ours(zero: str, group: int = 64) -> Contender:
    """This project; at group sizes beside 64, at two sizes and on one thread."""
    usual = group == 64
    return Contender(
        f"arrowquant-{zero}" if usual else f"arrowquant-{zero}-g{group}",
        "arrowquant",
        "pytest-arrowquant",
        ZEROS[zero][group],
        OPERATIONS,
        zero=zero,
        group=group,
        options={"zero": zero, "group": group},
        sizes=SIZES if usual else AT_SIDES,
        fused=True,
        parallel=usual,
        reuses=("quantize", "dequantize"),
        note="quantize(..., out), .dequantize(out), .compare(x), quantize_and_compare",
    )


CONTENDERS = (
    *(_ours(zero) for zero in ZEROS),
    Contender(
        "numpy",
        "plain_numpy",
        "numpy",
        MINIMUM[64],
        OPERATIONS,
        parallel=False,
        reuses=("compare",),
        note="as one writes it first, in float32; compares arrays that lie restored in memory",
    ),
    Contender(
        "fbgemm",
        "fbgemm",
        "torch",
        MINIMUM[64],
        OPERATIONS,
        note="torch.ops.quantized.embedding_bag_*_prepack and _unpack; rows of 64 weights, each "
        "with its scale and minimum (float16 at 4 and 2 bits); torch compares what lies restored",
    ),
    Contender(
        "torchao",
        "torchao",
        "torchao",
        {8: 44.37, 4: 19.77, 2: 5.84},
        zero="symmetric",
        note="IntxUnpackedToInt8Tensor, eager, symmetric; a byte a code at every width",
    ),
    Contender(
        "bitsandbytes-int8",
        "bitsandbytes",
        "bitsandbytes",
        {8: SYMMETRIC[64][8]},
        zero="symmetric",
        options={"kind": "int8"},
        note="int8_vectorwise_quant; rows of 64 weights, each with its scale",
    ),
    Contender(
        "bitsandbytes-dynamic8",
        "bitsandbytes",
        "bitsandbytes",
        {8: 40.43},
        zero="symmetric",
        options={"kind": "dynamic8"},
        note="quantize_blockwise; a table of 256 levels",
    ),
    Contender(
        "bitsandbytes-nf4",
        "bitsandbytes",
        "bitsandbytes",
        {4: 20.72},
        zero="symmetric",
        options={"kind": "nf4"},
        note="quantize_4bit; a table of 16 levels",
    ),
    Contender(
        "hqq", "hqq", "hqq", MINIMUM[64], options={"optimize": False}, note="without its search"
    ),
    Contender(
        "hqq-optimized",
        "hqq",
        "hqq",
        SEARCHED,
        options={"optimize": True},
        note="with its search; dequantizes as without",
    ),
    Contender(
        "quanto-max",
        "quanto",
        "optimum-quanto",
        MINIMUM[64] | {8: SYMMETRIC[64][8]},
        options={"search": False},
        note="MaxOptimizer; 8 bits symmetric, rows of 64 weights, each with its scale",
    ),
    Contender(
        "quanto-hqq",
        "quanto",
        "optimum-quanto",
        {width: SEARCHED[width] for width in (4, 2)},
        options={"search": True},
        note="HqqOptimizer; dequantizes as MaxOptimizer",
    ),
    Contender(
        "onnxruntime",
        "onnxruntime",
        "onnxruntime",
        INTEGER[64],
        zero="integer",
        sizes=NOT_THE_SMALLEST,
        reuses=("quantize", "dequantize"),
        needs=("onnx",),
        note="quantize_matmul_*bits of the weight transposed beforehand; DequantizeLinear; "
        "not at 64 x 64, where rows of one group have padded zero points",
    ),
    Contender(
        "gguf",
        "gguf",
        "gguf",
        {8: 45.44, 4: 21.33},
        zero="symmetric",
        group=32,
        parallel=False,
        note="Q8_0 and Q4_0: its own blocks of 32 weights, float16 scales; numpy code",
    ),
    *(_ours(zero, group) for group in (32, 128) for zero in ZEROS),
)

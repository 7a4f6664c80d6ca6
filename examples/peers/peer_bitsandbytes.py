"""The quantizers of `bitsandbytes`: NF4 and FP4 in blocks of 64, int8 by row."""

from bitsandbytes import functional
from stored import Stored, bytes_of

from pytest_arrowquant import Domain, roundtrip
from pytest_arrowquant.codes import Grid

BLOCK = 64
FOUR_BITS = (
    "idempotent",
    "monotone",
    "permutation_equivariant",
    "scale_equivariant",
    "zero_kept",
)
DTYPES = ("float16", "bfloat16", "float32")


def _four_bits(kind):
    values = functional.get_4bit_type(kind, device="cpu").tolist()
    grid = Grid(4, None, BLOCK, tuple(values))  # floats err more than integers in some rows

    def stored(weight):
        codes, state = functional.quantize_4bit(weight, blocksize=BLOCK, quant_type=kind)
        nbytes = bytes_of(codes, state.absmax)
        return Stored(lambda: functional.dequantize_4bit(codes, state), nbytes, grid)

    return roundtrip(
        f"bitsandbytes-{kind}",
        stored,
        4,
        framework="torch",
        granularity=BLOCK,
        properties=FOUR_BITS,
        domain=Domain(DTYPES, (2, 3, 4), BLOCK, smallest=2.0**-120),
    )


def _int8(weight):
    codes, largest, _ = functional.int8_vectorwise_quant(weight)
    nbytes = bytes_of(codes, largest)
    return Stored(lambda: functional.int8_vectorwise_dequant(codes, largest), nbytes)


QUANTIZERS = [
    _four_bits("nf4"),
    _four_bits("fp4"),
    roundtrip(
        "bitsandbytes-int8",
        _int8,
        8,
        framework="torch",
        granularity="channel",
        properties=(*FOUR_BITS, "sign_symmetric"),
        domain=Domain(DTYPES, (2,), smallest=2.0**-120, largest=2.0**121),
    ),
]

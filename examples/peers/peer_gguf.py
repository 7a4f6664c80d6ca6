"""The quantizers of `gguf`, llama.cpp's numpy package: blocks of 32 weights along a row."""

from gguf import GGMLQuantizationType, dequantize, quantize
from stored import Stored

from pytest_arrowquant import Domain, roundtrip

BLOCK = 32
LARGEST = 65504.0  # scales and minima are float16,
SMALLEST = 2.0**-7  # and below this a scale of Q8_0 is no normal one


def _quantizer(kind, bits, properties):
    def stored(weight):
        packed = quantize(weight, kind)
        return Stored(lambda: dequantize(packed, kind), packed.nbytes)

    return roundtrip(
        f"gguf-{kind.name.lower()}",
        stored,
        bits,
        granularity=BLOCK,
        properties=properties,
        domain=Domain(
            dimensions=(1, 2), columns_multiple=BLOCK, smallest=SMALLEST, largest=LARGEST
        ),
    )


AFFINE = ("idempotent", "monotone", "permutation_equivariant")
SIGNED = ("idempotent", "monotone", "zero_kept", "sign_symmetric", "scale_equivariant")
QUANTIZERS = [
    _quantizer(GGMLQuantizationType.Q4_0, 4, SIGNED),  # of 1 and -1, the first is kept exactly
    _quantizer(GGMLQuantizationType.Q4_1, 4, AFFINE),
    _quantizer(GGMLQuantizationType.Q5_0, 5, SIGNED),
    _quantizer(GGMLQuantizationType.Q5_1, 5, AFFINE),
    _quantizer(GGMLQuantizationType.Q8_0, 8, (*SIGNED, "permutation_equivariant")),
]

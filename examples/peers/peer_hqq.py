"""The quantizer of `hqq`: half-quadratic search for the zero points, groups along a row."""

from hqq.core.quantize import Quantizer
from stored import Stored, bytes_of

from pytest_arrowquant import Domain, roundtrip

GROUP = 64


def _stored(weight, bits):
    codes, meta = Quantizer.quantize(weight, nbits=bits, group_size=GROUP, axis=1, device="cpu")
    nbytes = bytes_of(codes, meta["scale"], meta["zero"])
    return Stored(lambda: Quantizer.dequantize(codes, meta), nbytes)


OF_TENSOR = "the search stops by the mean error of the whole tensor"
QUANTIZERS = [
    roundtrip(
        "hqq",
        _stored,
        (2, 4, 8),
        framework="torch",
        granularity=GROUP,
        properties=("monotone",),
        lacks={
            "rows_independent": OF_TENSOR,
            "groups_independent": OF_TENSOR,
            "accurate": "at 2 bits no code is 0, so a row with outliers may be worse than zeros",
        },
        domain=Domain(columns_multiple=4 * GROUP, smallest=2.0**-7, largest=2.0**120),
    )
]

"""The hook that other projects implement."""

from typing import Any


def pytest_arrowquant_quantizers(config: Any) -> Any:
    """The quantizers that --arrowquant-accuracy tests instead of the built-in ones.

    Returns one or several objects with `name`, `bits` (the widths supported) and
    `quantize(weight, bits, calibration=None)`, which returns anything with `dequantize()` and, if
    it can, `nbytes`; `pytest_arrowquant.roundtrip(name, function)` makes one of a bare function.
    Implement it in a conftest.py or plugin:

        def pytest_arrowquant_quantizers(config):
            return [pytest_arrowquant.roundtrip("mine", my_round_trip, bits=(4, 8))]
    """

from group_quant import quantize

from pytest_arrowquant import roundtrip


def pytest_arrowquant_quantizers(config):
    return [roundtrip("group_quant", quantize, bits=(4, 8), granularity=64)]

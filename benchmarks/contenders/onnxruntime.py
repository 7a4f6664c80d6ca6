"""onnxruntime: its quantizers for MatMulNBits, and the operator DequantizeLinear."""

from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnxruntime.capi import _pybind_state

from .work import Work

GROUP = 64
TYPES = {8: TensorProto.UINT8, 4: TensorProto.UINT4, 2: TensorProto.UINT2}
OPSET, IR_VERSION = 25, 13  # the first with two bits


def prepare(x: Any, bits: int, threads: int) -> Work:
    """The weight is transposed beforehand, as it is wanted."""
    rows, columns = x.shape
    groups = columns // GROUP
    transposed = np.ascontiguousarray(x.T)
    codes = np.empty((rows, groups, GROUP * bits // 8), np.uint8)
    scale = np.empty((rows, groups), np.float32)
    zero = np.empty((rows, -(-groups * bits // 8)), np.uint8)
    out = np.empty_like(x)
    kernel = getattr(_pybind_state, f"quantize_matmul_{bits}bits")

    def quantize() -> None:
        kernel(codes, transposed, scale, zero, GROUP, rows, columns, False)

    quantize()
    session = onnxruntime.InferenceSession(
        _model(codes, scale, zero, bits, x.shape), _options(threads), ["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    binding.bind_output("y", "cpu", 0, np.float32, out.shape, out.ctypes.data)

    def dequantize() -> Any:
        session.run_with_iobinding(binding)
        return out

    return Work(
        {"quantize": quantize, "dequantize": dequantize},
        dequantize,
        codes.nbytes + scale.nbytes + zero.nbytes,
    )


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # the weights are constants, which would be restored once and for all
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _model(codes: Any, scale: Any, zero: Any, bits: int, shape: tuple[int, int]) -> bytes:
    grid = scale.shape
    constants = [
        helper.make_tensor("q", TYPES[bits], shape, codes.tobytes(), raw=True),
        helper.make_tensor("s", TensorProto.FLOAT, grid, scale.tobytes(), raw=True),
        helper.make_tensor("z", TYPES[bits], grid, zero.tobytes(), raw=True),
    ]
    node = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1, block_size=GROUP)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph([node], "dequantize", [], [output], constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    return bytes(model.SerializeToString())

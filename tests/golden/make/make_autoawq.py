# /// script
# requires-python = ">=3.11"
# dependencies = ["autoawq==0.2.9", "torch==2.13.0", "safetensors"]
# ///
"""Golden AWQ checkpoints by AutoAWQ: its WQLinear layers pack; its dequantize_gemm restores.

For gemv, whose only reader is a CUDA kernel, what gemm restores of the same codes is expected. The
package's own __init__ wants an older transformers, so that the modules are imported by themselves.
"""

import sys
from importlib.metadata import distribution
from types import ModuleType

from gptq_cases import MODULES, grid, linear, on_grid, write

for package in ("awq", "awq.modules", "awq.modules.linear", "awq.utils"):
    sys.modules[package] = ModuleType(package)
    folder = distribution("autoawq").locate_file(package.replace(".", "/"))
    sys.modules[package].__path__ = [str(folder)]

from awq.modules.linear.gemm import WQLinear_GEMM  # noqa: E402
from awq.modules.linear.gemv import WQLinear_GEMV  # noqa: E402
from awq.utils.packing_utils import dequantize_gemm  # noqa: E402

CASES = {  # version, group size
    "gemm-g32": ("gemm", 32),
    "gemm-g64": ("gemm", 64),
    "gemv-g32": ("gemv", 32),
    "gemv-g64": ("gemv", 64),
}

for case, (version, group_size) in CASES.items():
    layers = {name: linear(weight) for name, weight in MODULES.items()}
    tensors, expected = {}, {}
    for name, layer in layers.items():
        scale, zero = grid(layer.weight.data, 4, group_size, False)
        scale = scale.half()
        layout = (scale.T.contiguous(), zero.T.contiguous())
        rounded = on_grid(layer, scale.float(), zero, 4, group_size)
        rounded.bias = layer.bias
        gemm = WQLinear_GEMM.from_linear(rounded, 4, group_size, False, *layout)
        expected[f"{name}.weight"] = dequantize_gemm(
            gemm.qweight, gemm.qzeros, gemm.scales, 4, group_size
        ).T
        module = gemm
        if version == "gemv":
            module = WQLinear_GEMV.from_linear(rounded, 4, group_size, False, scale, zero)
        roles = ("qweight", "qzeros", "scales", "bias")
        tensors |= {f"{name}.{role}": getattr(module, role) for role in roles}
    config = {
        "bits": 4, "group_size": group_size, "quant_method": "awq", "version": version,
        "zero_point": True, "modules_to_not_convert": None,
    }  # fmt: skip
    write(f"awq/{case}", tensors, expected, layers, config)

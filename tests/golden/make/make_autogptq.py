# /// script
# requires-python = ">=3.11"
# dependencies = ["auto-gptq==0.7.1", "torch==2.13.0", "transformers", "safetensors"]
# ///
"""Golden GPTQ checkpoints by AutoGPTQ: its QuantLinear packs; its forward of the identity restores.

The package's own __init__ wants an older transformers, so that the module is imported by itself.
"""

import sys
from importlib.metadata import distribution
from types import ModuleType

import torch
from gptq_cases import MODULES, grid, linear, on_grid, write

for package in ("auto_gptq", "auto_gptq.nn_modules", "auto_gptq.nn_modules.qlinear"):
    sys.modules[package] = ModuleType(package)
    folder = distribution("auto-gptq").locate_file(package.replace(".", "/"))
    sys.modules[package].__path__ = [str(folder)]

from auto_gptq.nn_modules.qlinear.qlinear_cuda_old import QuantLinear  # noqa: E402

CASES = {  # bits, group size, sym
    "auto-int4-g32-sym": (4, 32, True),
    "auto-int4-g32-asym": (4, 32, False),
    "auto-int3-g32-sym": (3, 32, True),
    "auto-int2-g32-sym": (2, 32, True),
    "auto-int8-channel-asym": (8, -1, False),
}

for case, (bits, group_size, sym) in CASES.items():
    layers = {name: linear(weight) for name, weight in MODULES.items()}
    tensors, expected = {}, {}
    for name, layer in layers.items():
        rows, columns = layer.weight.shape
        size = columns if group_size == -1 else group_size
        module = QuantLinear(bits, group_size, columns, rows, True, weight_dtype=torch.float16)
        scale, zero = grid(layer.weight.data, bits, size, sym)
        module.pack(on_grid(layer, scale, zero, bits), scale.half(), zero.clone(), None)
        module.bias = None
        expected[f"{name}.weight"] = module(torch.eye(columns).half()).T.clone()
        parts = {role: getattr(module, role) for role in ("qweight", "qzeros", "scales", "g_idx")}
        tensors |= {
            f"{name}.{role}": part for role, part in {**parts, "bias": layer.bias.data}.items()
        }
    config = {
        "bits": bits, "group_size": group_size, "damp_percent": 0.01, "desc_act": False,
        "sym": sym, "true_sequential": True, "quant_method": "gptq", "checkpoint_format": "gptq",
    }  # fmt: skip
    write(f"gptq/{case}", tensors, expected, layers, config)

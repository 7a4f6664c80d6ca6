# /// script
# requires-python = ">=3.11"
# dependencies = ["auto-gptq==0.7.1", "torch==2.13.0", "transformers", "safetensors"]
# ///
"""Golden GPTQ checkpoints by AutoGPTQ: its QuantLinear packs; its forward of the identity restores.

Where a zero point is 0, its packer writes -1, which runs over the later ones of the same word: such
files, and what it makes of them itself, lie in ../../broken. The package's own __init__ wants an
older transformers, so that the modules are imported by themselves.
"""

import sys
from importlib.metadata import distribution
from types import ModuleType

import torch
from gptq_cases import MODULES, SMALL, grid, linear, on_grid, write

for package in ("auto_gptq", "auto_gptq.nn_modules", "auto_gptq.nn_modules.qlinear"):
    sys.modules[package] = ModuleType(package)
    folder = distribution("auto-gptq").locate_file(package.replace(".", "/"))
    sys.modules[package].__path__ = [str(folder)]

from auto_gptq.nn_modules.qlinear import qlinear_cuda, qlinear_cuda_old  # noqa: E402

HALF, BRAIN = torch.float16, torch.bfloat16
OLD, NEW = qlinear_cuda_old.QuantLinear, qlinear_cuda.QuantLinear  # the second for act-order
CASES = {  # kernel, bits, group size, sym, act-order, type, positive runs: zero points of 0
    "auto-int4-g32-sym": (OLD, 4, 32, True, False, HALF, False),
    "auto-int4-g32-asym": (OLD, 4, 32, False, False, HALF, False),
    "auto-int3-g32-sym": (OLD, 3, 32, True, False, HALF, False),
    "auto-int2-g32-sym": (OLD, 2, 32, True, False, HALF, False),
    "auto-int8-channel-asym": (OLD, 8, -1, False, False, HALF, False),
    "auto-int4-g32-asym-actorder-bfloat16": (NEW, 4, 32, False, True, BRAIN, False),
    "auto-int4-g32-asym-zero-of-0": (NEW, 4, 32, False, False, HALF, True),
    "auto-int3-g32-asym-zero-of-0": (NEW, 3, 32, False, False, HALF, True),
}

for case, (kernel, bits, group_size, sym, actorder, dtype, positive) in CASES.items():
    weights = SMALL if kernel is NEW else MODULES
    layers = {name: linear(weight, positive, dtype) for name, weight in weights.items()}
    tensors, expected = {}, {}
    for name, layer in layers.items():
        rows, columns = layer.weight.shape
        size = columns if group_size == -1 else group_size
        module = kernel(bits, group_size, columns, rows, True, weight_dtype=dtype)
        order = torch.arange(columns)
        if actorder:  # the columns of a group lie apart
            order = torch.randperm(columns, generator=torch.Generator().manual_seed(0))
        sorted_layer = linear(layer.weight.data[:, order], dtype=dtype)
        scale, zero = grid(sorted_layer.weight.data, bits, size, sym)
        rounded = on_grid(sorted_layer, scale, zero, bits, size)
        rounded.weight.data = rounded.weight.data[:, torch.argsort(order)]
        groups = (torch.argsort(order) // size).to(torch.int32)
        module.pack(rounded, scale.to(dtype), zero.clone(), groups)
        module.bias = None
        expected[f"{name}.weight"] = module(torch.eye(columns).to(dtype)).T.clone()
        parts = {role: getattr(module, role) for role in ("qweight", "qzeros", "scales", "g_idx")}
        tensors |= {
            f"{name}.{role}": part for role, part in {**parts, "bias": layer.bias.data}.items()
        }
    config = {  # as BaseQuantizeConfig.to_dict has it
        "bits": bits, "group_size": group_size, "damp_percent": 0.01, "desc_act": actorder,
        "static_groups": False, "sym": sym, "true_sequential": True, "model_name_or_path": None,
        "model_file_base_name": None, "is_marlin_format": False, "quant_method": "gptq",
    }  # fmt: skip
    folder = "../broken/gptq" if positive else "gptq"
    write(f"{folder}/{case}", tensors, expected, layers, config)

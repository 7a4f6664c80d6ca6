# /// script
# requires-python = ">=3.11"
# dependencies = ["gptqmodel==7.7.0", "torch==2.13.0", "safetensors"]
# ///
"""Golden GPTQ checkpoints by GPTQModel: its TorchLinear packs, and restores what is expected.

Codes are rounded to nearest: how they are chosen does not matter to how they lie. For the first
version ("gptq") its own conversion subtracts one from the zero points, as it does when it saves.
"""

import torch
from gptq_cases import MODULES, RAGGED, grid, linear, on_grid, write
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.quantization import QuantizeConfig
from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

CASES = {  # bits, group size, sym, act-order, version, positive runs: zero points of 0
    "v1-int4-g32-sym": (4, 32, True, False, "gptq", False),
    "v1-int4-g32-asym": (4, 32, False, False, "gptq", False),
    "v1-int4-g32-asym-zero-of-0": (4, 32, False, False, "gptq", True),
    "v1-int3-g32-asym-zero-of-0": (3, 32, False, False, "gptq", True),
    "v1-int8-channel-sym": (8, -1, True, False, "gptq", False),
    "v1-int2-g32-asym-zero-of-0": (2, 32, False, False, "gptq", True),
    "v1-int4-g32-asym-ragged": (4, 32, False, False, "gptq", False),
    "v2-int4-g32-asym-actorder": (4, 32, False, True, "gptq_v2", True),
    "v2-int3-g32-sym": (3, 32, True, False, "gptq_v2", False),
    "v2-int2-g32-sym-actorder": (2, 32, True, True, "gptq_v2", False),
}


def made(layer, bits, group_size, sym, actorder, version):
    rows, columns = layer.weight.shape
    size = columns if group_size == -1 else group_size
    module = TorchLinear(
        bits=bits, group_size=group_size, sym=sym, desc_act=actorder,
        in_features=columns, out_features=rows, bias=True,
    )  # fmt: skip
    order = torch.arange(columns) // size
    rounded = layer
    if actorder:  # groups of columns that lie apart
        order = order[torch.randperm(columns, generator=torch.Generator().manual_seed(0))]
        together = torch.argsort(order, stable=True)
        sorted_layer = linear(layer.weight.data[:, together])
        scale, zero = grid(sorted_layer.weight.data, bits, size, sym)
        rounded = on_grid(sorted_layer, scale, zero, bits, size)
        rounded.weight.data = rounded.weight.data[:, torch.argsort(together)]
    else:
        scale, zero = grid(layer.weight.data, bits, size, sym)
        rounded = on_grid(layer, scale, zero, bits, size)
    module.pack_original(rounded, scale, zero, g_idx=order.to(torch.int32))
    module.post_init()
    module.eval()
    restored = module.dequantize_weight().T.clone()
    if version == "gptq":
        convert_gptq_v2_to_v1_format_module(
            module, QuantizeConfig(bits=bits, group_size=group_size)
        )
    roles = ("qweight", "qzeros", "scales", "g_idx", "bias")
    return {role: getattr(module, role) for role in roles}, restored


for case, settings in CASES.items():
    weights = RAGGED if case.endswith("ragged") else MODULES
    layers = {name: linear(weight, settings[-1]) for name, weight in weights.items()}
    tensors, expected = {}, {}
    for name, layer in layers.items():
        parts, expected[f"{name}.weight"] = made(layer, *settings[:-1])
        tensors |= {f"{name}.{role}": part for role, part in parts.items()}
    bits, group_size, sym, actorder, version, _ = settings
    config = {
        "bits": bits, "group_size": group_size, "sym": sym, "desc_act": actorder,
        "quant_method": "gptq", "checkpoint_format": version, "pack_dtype": "int32",
        "lm_head": False, "meta": {"quantizer": ["gptqmodel:7.7.0"]},
    }  # fmt: skip
    write(f"gptq/{case}", tensors, expected, layers, config)

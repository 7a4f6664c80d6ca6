# /// script
# requires-python = ">=3.11"
# dependencies = ["gptqmodel==7.7.0", "torch==2.13.0", "safetensors"]
# ///
"""A golden AWQ checkpoint by GPTQModel: its AwqTorchLinear packs and restores."""

from gptq_cases import SMALL, grid, linear, on_grid, write
from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear
from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

BITS, SIZE = 4, 32

layers = {name: linear(weight) for name, weight in SMALL.items()}
tensors, expected = {}, {}
for name, layer in layers.items():
    rows, columns = layer.weight.shape
    scale, zero = grid(layer.weight.data, BITS, SIZE, False)
    module = AwqTorchLinear(
        bits=BITS, group_size=SIZE, sym=False, desc_act=False,
        in_features=columns, out_features=rows, bias=True,
    )  # fmt: skip
    module.pack(on_grid(layer, scale, zero, BITS, SIZE), scale.half(), zero)
    expected[f"{name}.weight"] = dequantize_gemm(
        module.qweight, module.qzeros, module.scales, BITS, SIZE
    ).T
    roles = ("qweight", "qzeros", "scales", "bias")
    tensors |= {f"{name}.{role}": getattr(module, role) for role in roles}
config = {
    "bits": BITS, "group_size": SIZE, "desc_act": False, "lm_head": False, "method": "awq",
    "quant_method": "awq", "format": "gemm", "checkpoint_format": "gemm", "pack_dtype": "int32",
    "meta": {"quantizer": ["gptqmodel:7.7.0"]}, "zero_point": True, "version": "gemm",
}  # fmt: skip
write("awq/gptqmodel-gemm-g32", tensors, expected, layers, config)

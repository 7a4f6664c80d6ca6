# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch==2.13.0",
#   "torchao==0.18.0",
#   "fbgemm-gpu-genai==1.9.0",
#   "ml_dtypes==0.6.0",
#   "numpy==2.4.6",
#   "safetensors==0.8.0",
# ]
# ///
"""Golden torchao files: quantize_, then flatten_tensor_state_dict, as its documentation saves them.

Expected values are those of each tensor's own dequantize. Int4Tensor has none: its values come from
the torch reference in torchao's GPTQ, in float32. Its packing functions are sought in `mslk`, of
which PyPI has an empty package alone; they are FBGEMM's, whose file is loaded by itself since the
package wants CUDA.
"""

import importlib.util
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file, save_file

FBGEMM = distribution("fbgemm-gpu-genai").locate_file("fbgemm_gpu/experimental/gen_ai/quantize.py")
sys.modules["fbgemm_gpu.experimental.gemm.triton_gemm.fp8_gemm"] = ModuleType("needs CUDA")
sys.modules["fbgemm_gpu.experimental.gemm.triton_gemm.fp8_gemm"].quantize_fp8_row = None
spec = importlib.util.spec_from_file_location("mslk.quantize.shuffle", FBGEMM)
sys.modules["mslk.quantize.shuffle"] = shuffle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shuffle)

from torchao.prototype.gptq.api import _int4_row_dequantize_zp  # noqa: E402
from torchao.prototype.mx_formats.inference_workflow import (  # noqa: E402
    NVFP4WeightOnlyConfig,
)
from torchao.prototype.mx_formats.mx_tensor import MXTensor  # noqa: E402
from torchao.prototype.safetensors.safetensors_support import (  # noqa: E402
    flatten_tensor_state_dict,
)
from torchao.quantization import (  # noqa: E402
    Float8Tensor,
    Float8WeightOnlyConfig,
    Int4Tensor,
    Int4WeightOnlyConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    MappingType,
    PerAxis,
    PerGroup,
    PerRow,
    PerTensor,
    quantize_,
)
from torchao.quantization.granularity import PerBlock  # noqa: E402

HERE = Path(__file__).parent
DATA = load_file(HERE.parents[1] / "data" / "minilm_slice.safetensors")
DENSE = DATA["encoder.layer.0.output.dense.weight"]
QUERY = DATA["encoder.layer.0.attention.self.query.weight"]
BIAS = DATA["encoder.layer.0.attention.self.query.bias"]
Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"


def model(tensors, dtype):
    """Modules whose parameters have these names."""
    root = torch.nn.Module()
    for name, value in tensors.items():
        module = root
        *path, parameter = name.split(".")
        for word in path[:-1]:
            if not hasattr(module, word):
                module.add_module(word, torch.nn.Module())
            module = getattr(module, word)
        if parameter == "weight":
            linear = torch.nn.Linear(*value.shape[::-1], bias=f"{'.'.join(path)}.bias" in tensors)
            module.add_module(path[-1], linear)
        getattr(module, path[-1]).register_parameter(parameter, torch.nn.Parameter(value.to(dtype)))
    return root


def dequantized(tensor):
    if not isinstance(tensor, Int4Tensor):
        return tensor.dequantize()
    low = torch.bitwise_right_shift(torch.bitwise_left_shift(tensor.qdata, 4), 4)
    codes = torch.stack([low, torch.bitwise_right_shift(tensor.qdata, 4)], -1).flatten(-2)
    return _int4_row_dequantize_zp(
        codes, tensor.scale.float(), tensor.zero_point.float(), tensor.block_size[-1]
    ).to(tensor.dtype)


def write(case, quantize, *, q=(8, 64), down=(6, 96), dtype=torch.bfloat16):
    """quantize: by module, a config of torchao, or what makes the tensor."""
    tensors = {
        f"{Q}.weight": QUERY[: q[0], : q[1]],
        f"{Q}.bias": BIAS[: q[0]],
        f"{DOWN}.weight": DENSE[: down[0], : down[1]],
        "model.norm.weight": BIAS[: q[0]] + 1,
    }
    tensors = {name: value.to(dtype).contiguous() for name, value in tensors.items()}
    module = model({n: v for n, v in tensors.items() if "norm" not in n}, dtype)
    for path, how in quantize.items():
        linear = module.get_submodule(path)
        if callable(how):
            weight = how(linear.weight.detach())
            linear.weight = torch.nn.Parameter(weight, requires_grad=False)
        else:
            quantize_(linear, how)
    state = {name: value.detach() for name, value in module.state_dict().items()}
    state["model.norm.weight"] = tensors["model.norm.weight"]
    stored, metadata = flatten_tensor_state_dict(state)
    folder = HERE.parent / "torchao" / case
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {n: v.contiguous() for n, v in stored.items()}, folder / "model.safetensors", metadata
    )
    save_file(tensors, folder / "original.safetensors")
    expected = {f"{path}.weight": dequantized(state[f"{path}.weight"]) for path in quantize}
    save_file({n: v.contiguous() for n, v in expected.items()}, folder / "expected.safetensors")


def intx(bits, granularity, mapping=MappingType.SYMMETRIC):
    return IntxWeightOnlyConfig(getattr(torch, f"int{bits}"), granularity, mapping)


def mx(elem_dtype, swizzled):
    return lambda w: MXTensor.to_mx(w, elem_dtype, 32, is_swizzled_scales=swizzled)


G32, CHANNEL, ASYMMETRIC = PerGroup(32), PerAxis(0), MappingType.ASYMMETRIC
write("intx-int4-g32-sym", {Q: intx(4, G32), DOWN: intx(4, G32)})
write(
    "intx-int4-g32-asym-f32",
    {Q: intx(4, G32, ASYMMETRIC), DOWN: intx(4, G32, ASYMMETRIC)},
    dtype=torch.float32,
)
write(
    "intx-int2-g32-asym-int6-channel-f16",
    {Q: intx(2, G32, ASYMMETRIC), DOWN: intx(6, CHANNEL)},
    dtype=torch.float16,
)
write("int8-row", {Q: Int8WeightOnlyConfig(granularity=PerRow()), DOWN: Int8WeightOnlyConfig()})
write(
    "int8-g32-tensor",
    {Q: Int8WeightOnlyConfig(granularity=G32), DOWN: Int8WeightOnlyConfig(granularity=PerTensor())},
)
write(
    "float8-row-e5m2-row",
    {
        Q: Float8WeightOnlyConfig(),
        DOWN: lambda w: Float8Tensor.from_hp(w, torch.float8_e5m2, PerRow()),
    },
)
write(
    "float8-tensor-block",
    {
        Q: lambda w: Float8Tensor.from_hp(w, granularity=PerTensor()),
        DOWN: lambda w: Float8Tensor.from_hp(w, granularity=PerBlock([3, 32])),
    },
)
write(
    "int4-plain-g32",
    {Q: Int4WeightOnlyConfig(group_size=32), DOWN: Int4WeightOnlyConfig(group_size=32)},
)
write("mxfp8-mxfp4", {Q: mx(torch.float8_e4m3fn, False), DOWN: mx(torch.float4_e2m1fn_x2, False)})
write(
    "mxfp4-swizzled",
    {Q: mx(torch.float4_e2m1fn_x2, True), DOWN: mx(torch.float4_e2m1fn_x2, True)},
    q=(16, 32), down=(8, 160),
)  # fmt: skip
write(
    "nvfp4-swizzled",
    {Q: NVFP4WeightOnlyConfig(), DOWN: NVFP4WeightOnlyConfig(use_dynamic_per_tensor_scale=False)},
    q=(48, 16), down=(16, 80),
)  # fmt: skip

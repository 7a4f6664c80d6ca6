# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch==2.13.0",
#   "compressed-tensors==0.20.0",  # and once more with 0.15.0 for the packing before 0.17
#   "transformers>=5.2",
#   "safetensors",
# ]
# ///
"""Golden compressed-tensors checkpoints: its compressors on slices of trained weights.

Scales and zero points are its own calculate_qparams of minima and maxima, codes its quantize, and
expected values what its decompress gives; for NVFP4, which that computes in bfloat16, what its
dequantize gives in float32. With a version before 0.17 it makes the cases named `old-...` alone.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
)
from compressed_tensors.quantization.lifecycle.forward import dequantize
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
DATA = load_file(HERE.parents[1] / "data" / "minilm_slice.safetensors")
DENSE = DATA["encoder.layer.0.output.dense.weight"]
QUERY = DATA["encoder.layer.0.attention.self.query.weight"]
MODULES = {
    "model.layers.0.mlp.down_proj": DENSE[:12, :160],
    "model.layers.0.mlp.up_proj": QUERY[:20, :64],
}
OLD = tuple(int(n) for n in version("compressed-tensors").split(".")[:2]) < (0, 17)


def args(**said):
    return QuantizationArgs(**{"symmetric": True, **said})


GROUP = {"strategy": "group", "group_size": 32}
CASES = {
    "pack-int4-g32-sym": ("pack-quantized", args(num_bits=4, **GROUP), torch.bfloat16),
    "pack-int4-g32-asym": (
        "pack-quantized",
        args(num_bits=4, symmetric=False, **GROUP),
        torch.bfloat16,
    ),
    "pack-int8-channel": ("pack-quantized", args(num_bits=8, strategy="channel"), torch.float16),
    "pack-int3-g32-asym": (
        "pack-quantized",
        args(num_bits=3, symmetric=False, **GROUP),
        torch.float32,
    ),
    "pack-int2-g32": ("pack-quantized", args(num_bits=2, **GROUP), torch.float32),
    "pack-int6-channel-asym": (
        "pack-quantized",
        args(num_bits=6, symmetric=False, strategy="channel"),
        torch.float32,
    ),
    "int8-channel": ("int-quantized", args(num_bits=8, strategy="channel"), torch.bfloat16),
    "int8-channel-asym": (
        "int-quantized",
        args(num_bits=8, symmetric=False, strategy="channel"),
        torch.float32,
    ),
    "int8-tensor": ("int-quantized", args(num_bits=8, strategy="tensor"), torch.float32),
    "fp8-channel": (
        "float-quantized",
        args(num_bits=8, type="float", strategy="channel"),
        torch.bfloat16,
    ),
    "fp8-tensor": (
        "float-quantized",
        args(num_bits=8, type="float", strategy="tensor"),
        torch.float32,
    ),
    "fp8-block": (
        "float-quantized",
        args(num_bits=8, type="float", strategy="block", block_structure=[8, 32]),
        torch.float32,
    ),
    "nvfp4": (
        "nvfp4-pack-quantized",
        args(num_bits=4, type="float", strategy="tensor_group", group_size=16),
        torch.float32,
    ),
    "mxfp4": (
        "mxfp4-pack-quantized",
        args(num_bits=4, type="float", strategy="group", group_size=32, scale_dtype=torch.uint8),
        torch.float32,
    ),
}
OLD_CASES = {
    "old-pack-int3-g32-asym": CASES["pack-int3-g32-asym"],
    "old-pack-int6-channel-asym": CASES["pack-int6-channel-asym"],
    "old-pack-int4-g32-asym": CASES["pack-int4-g32-asym"],
}


def extents(weight, said):
    """Minima and maxima of what shares a scale."""
    if said.strategy == "tensor":
        return weight.min().reshape(1), weight.max().reshape(1)
    if said.strategy == "channel":
        return weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    if said.strategy == "block":
        height, width = said.block_structure
        rows, columns = -(-weight.shape[0] // height), -(-weight.shape[1] // width)
        padded = torch.nn.functional.pad(
            weight, (0, columns * width - weight.shape[1], 0, rows * height - weight.shape[0])
        ).reshape(rows, height, columns, width)
        return padded.amin((1, 3)), padded.amax((1, 3))
    groups = weight.reshape(len(weight), -1, said.group_size)
    return groups.amin(-1), groups.amax(-1)


def old_made(weight, said):
    """The same by an interface of instances, before 0.17."""
    from compressed_tensors.compressors import pack_to_int32, unpack_from_int32
    from compressed_tensors.quantization.lifecycle.forward import quantize

    scale, zero = calculate_qparams(*extents(weight, said), said)
    scale = scale.to(weight.dtype)
    codes = quantize(x=weight, scale=scale, zero_point=zero, args=said, dtype=torch.int8)
    packed = {
        "weight_packed": pack_to_int32(codes, said.num_bits),
        "weight_scale": scale,
        "weight_shape": torch.tensor(weight.shape),
        "weight_zero_point": pack_to_int32(zero, said.num_bits, packed_dim=0),
    }
    back = unpack_from_int32(packed["weight_packed"], said.num_bits, weight.shape)
    zeros = unpack_from_int32(packed["weight_zero_point"], said.num_bits, scale.shape, packed_dim=0)
    return packed, dequantize(x_q=back, scale=scale, zero_point=zeros, args=said)


def made(weight, said, kind):
    """(the compressed tensors of a module, what they restore)."""
    if OLD:
        return old_made(weight, said)
    scheme = QuantizationScheme(targets=["Linear"], weights=said)
    low, high = extents(weight, said)
    whole = None
    if said.strategy == "tensor_group":
        whole = generate_gparam(weight.min(), weight.max()).reshape(1)
        scale, zero = calculate_qparams(low, high, said, global_scale=whole)
    else:
        scale, zero = calculate_qparams(low, high, said)
    state = {"weight": weight, "weight_scale": scale.to(weight.dtype), "weight_zero_point": zero}
    if whole is not None:
        state |= {"weight_global_scale": whole, "weight_scale": scale}
    compressor = BaseCompressor.get_value_from_registry(kind)
    packed = compressor.compress(dict(state), scheme)
    restored = compressor.decompress(dict(packed), scheme)["weight"]
    if whole is not None:
        from compressed_tensors.compressors import unpack_fp4_from_uint8

        rows, half = packed["weight_packed"].shape
        codes = unpack_fp4_from_uint8(packed["weight_packed"], rows, 2 * half).float()
        restored = dequantize(
            x_q=codes, scale=packed["weight_scale"].float(), args=said, global_scale=whole,
            dtype=torch.float32,
        )  # fmt: skip
    return packed, restored


def make(name, kind, said, dtype):
    folder = HERE.parent / "compressed_tensors" / name
    folder.mkdir(parents=True, exist_ok=True)
    tensors, expected, original = {"model.norm.weight": torch.ones(8, dtype=dtype)}, {}, {}
    original |= tensors
    for module, weight in MODULES.items():
        weight = weight.to(dtype).contiguous()
        packed, expected[f"{module}.weight"] = made(weight, said, kind)
        original[f"{module}.weight"] = weight
        tensors |= {f"{module}.{role}": t.contiguous() for role, t in packed.items()}
    save_file(tensors, folder / "model.safetensors")
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    save_file(original, folder / "original.safetensors")
    scheme = QuantizationScheme(targets=["Linear"], weights=said)
    config = QuantizationConfig(config_groups={"group_0": scheme}, format=kind, ignore=["lm_head"])
    text = json.dumps({"quantization_config": json.loads(config.model_dump_json())}, indent=1)
    (folder / "config.json").write_text(text + "\n")


if __name__ == "__main__":
    for case, made_of in (OLD_CASES if OLD else CASES).items():
        make(case, *made_of)

# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch==2.13.0",
#   "hqq==0.2.8.post1",
#   "transformers==5.24.0",
#   "accelerate",
#   "numpy==2.4.6",
#   "safetensors==0.8.0",
# ]
# ///
"""Golden HQQ checkpoints: the state of its HQQLinear, one of groups along each axis.

Expected values are those of its dequantize, in the type it computes in. The config is that of
transformers, which loads such a state and cannot quantize on a CPU.
"""

import json
from pathlib import Path

import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from safetensors.torch import load_file, save_file
from transformers import HqqConfig

HERE = Path(__file__).parent
DATA = load_file(HERE.parents[1] / "data" / "minilm_slice.safetensors")
LAYER = {  # weight, axis
    "mlp.down_proj": (DATA["encoder.layer.0.output.dense.weight"][:16, :40], 1),
    "mlp.up_proj": (DATA["encoder.layer.0.attention.self.query.weight"][:24, :32], 1),
    "self_attn.q_proj": (DATA["encoder.layer.0.attention.self.query.weight"][-24:, -32:], 0),
}
CASES = {
    "int8-f32": ({"nbits": 8, "group_size": 16}, torch.float32),
    "int6-f32": ({"nbits": 6, "group_size": 16}, torch.float32),
    "int4-f16": ({"nbits": 4, "group_size": 16}, torch.float16),
    "int4-f32-whole-channels": ({"nbits": 4, "group_size": None}, torch.float32),
    "int4-viewed-as-bf16": ({"nbits": 4, "group_size": 16, "view_as_float": True}, torch.bfloat16),
    "int3-f32": ({"nbits": 3, "group_size": 16}, torch.float32),
    "int3-viewed-as-f16": ({"nbits": 3, "group_size": 16, "view_as_float": True}, torch.float16),
    "int2-bf16": ({"nbits": 2, "group_size": 16}, torch.bfloat16),
    "ternary-f32": ({"nbits": 1.58, "group_size": 16}, torch.float32),
    "int1-f32": ({"nbits": 1, "group_size": 16}, torch.float32),
}


def make(name, said, dtype):
    tensors, expected, original, config = {}, {}, {}, {}
    for module, (weight, axis) in LAYER.items():
        config[module] = {**said, "axis": axis}
        path = f"model.layers.0.{module}."
        linear = torch.nn.Linear(*weight.T.shape, bias=module == "mlp.up_proj", dtype=dtype)
        linear.weight.data = weight.to(dtype).contiguous()
        original[f"{path}weight"] = linear.weight.data.clone()
        if linear.bias is not None:
            linear.bias.data = weight[:, 0].to(dtype)
            original[f"{path}bias"] = linear.bias.data.clone()
        quantized = HQQLinear(
            linear, BaseQuantizeConfig(**config[module]), compute_dtype=dtype, device="cpu"
        )
        tensors |= {path + key: value for key, value in quantized.state_dict().items()}
        expected[f"{path}weight"] = quantized.dequantize()
    folder = HERE.parent / "hqq" / name
    folder.mkdir(parents=True, exist_ok=True)
    files = {"model": tensors, "expected": expected, "original": original}
    for file, content in files.items():
        content = {key: value.detach().contiguous() for key, value in content.items()}
        save_file(content, folder / f"{file}.safetensors", metadata={"format": "pt"})
    said = HqqConfig(dynamic_config=config).to_dict()
    text = json.dumps({"quantization_config": said}, indent=1, sort_keys=True)
    (folder / "config.json").write_text(text + "\n")


if __name__ == "__main__":
    for case, made_of in CASES.items():
        make(case, *made_of)

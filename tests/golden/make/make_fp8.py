# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch==2.13.0",
#   "transformers==5.23.0",
#   "accelerate",
#   "numpy==2.4.6",
#   "safetensors==0.8.0",
# ]
# ///
"""Golden FP8 checkpoints in the layouts that transformers loads.

Codes and scales are made by its Fp8Quantize; expected values are what it gives on a CPU, where it
dequantizes: from_pretrained for a Llama, Fp8Dequantize for single weights, and for blocks that do
not divide a weight the dequantization of its backward pass, after quantizing with zeros added.

No producer of these runs on a CPU, so they are by its formula: `channel` (FBGEMM's
quantize_fp8_per_row), `tensor` (AutoFP8's per_tensor_quantize), and the 4-bit codes of
`deepseek-v4`, which are the nearest of E2M1 under the smallest power of two that holds the group.
"""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import pad
from transformers import (
    AutoModelForCausalLM,
    FbgemmFp8Config,
    FineGrainedFP8Config,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.integrations.finegrained_fp8 import (
    Fp8Dequantize,
    Fp8Quantize,
    _dequantize_fp8_weight,
)

HERE = Path(__file__).parent
DATA = load_file(HERE.parents[1] / "data" / "minilm_slice.safetensors")
DENSE = DATA["encoder.layer.0.output.dense.weight"]
QUERY = DATA["encoder.layer.0.attention.self.query.weight"]
LAYER = {"down_proj": DENSE[:12, :160], "up_proj": QUERY[:20, :64]}
FP8 = torch.float8_e4m3fn
LARGEST = 448
V4_NAMES = {"down_proj": "w2", "up_proj": "w1"}
E2M1 = torch.tensor(Fp8Dequantize._FP4_E2M1_LUT)


def write(name, config, tensors, expected, original):
    folder = HERE.parent / "fp8" / name
    folder.mkdir(parents=True, exist_ok=True)
    files = {"model": tensors, "expected": expected, "original": original}
    for file, content in files.items():
        content = {key: value.detach().contiguous() for key, value in content.items()}
        save_file(content, folder / f"{file}.safetensors", metadata={"format": "pt"})
    text = json.dumps({"quantization_config": config}, indent=1, sort_keys=True)
    (folder / "config.json").write_text(text + "\n")


def operation(kind, said):
    return kind(SimpleNamespace(quantization_config=said))


def llama(name, said):
    """All linear layers of a Llama but lm_head and the down projection."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
        tie_word_embeddings=False, dtype="bfloat16", architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    for i, (parameter, value) in enumerate(sorted(model.named_parameters())):
        if value.dim() == 2:
            rows, columns = value.shape
            source = QUERY if "attn" in parameter else DENSE
            value.data.copy_(source[:rows, 24 * i : 24 * i + columns])
    original = {key: value.clone() for key, value in model.state_dict().items()}
    tensors = {}
    for key, value in original.items():
        quantized = "layers" in key and value.dim() == 2 and "down_proj" not in key
        found = operation(Fp8Quantize, said).convert({key: value}) if quantized else {key: value}
        if said.weight_block_size is None and quantized:
            found[f"{key}_scale_inv"] = found[f"{key}_scale_inv"].reshape(())
            found[key.replace("weight", "activation_scale")] = torch.tensor(0.02)
        tensors |= found
    with tempfile.TemporaryDirectory() as folder:
        config.quantization_config = said.to_dict()
        config.save_pretrained(folder)
        save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        restored = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).state_dict()
    expected = {key: restored[key] for key, value in tensors.items() if value.dtype == FP8}
    write(name, said.to_dict(), tensors, expected, original)


def blocks(name, said, dtype=torch.float32, as_bytes=False):
    """Single weights, whose last blocks are cut off."""
    height, width = said.weight_block_size
    tensors, expected, original = {}, {}, {}
    for module, weight in LAYER.items():
        key = f"model.layers.0.mlp.{module}.weight"
        rows, columns = weight.shape
        original[key] = weight = weight.to(dtype)
        whole = pad(weight, (0, -columns % width, 0, -rows % height))
        found = operation(Fp8Quantize, said).convert({key: whole})
        code, scale = found[key][:rows, :columns].contiguous(), found[f"{key}_scale_inv"]
        ragged = rows % height or columns % width
        expected[key] = (
            _dequantize_fp8_weight(code, scale, said.weight_block_size, dtype)
            if ragged
            else operation(Fp8Dequantize, said)._dequantize_one(code, scale, dtype)
        )
        scale = scale.view(torch.uint8) if as_bytes else scale
        tensors |= {key: code, f"{key}_scale_inv": scale}
    write(name, said.to_dict(), tensors, expected, original)


def stacked(name, said):
    """Experts in one tensor, as FP8Experts holds them."""
    key = "model.layers.0.mlp.experts.gate_up_proj"
    weight = torch.stack([DENSE[:24, :64], DENSE[24:48, :64]]).to(torch.bfloat16)
    tensors = operation(Fp8Quantize, said).convert({key: weight})
    restored = operation(Fp8Dequantize, said)._dequantize_one(
        tensors[key], tensors[f"{key}_scale_inv"], torch.bfloat16
    )
    norm = {"model.norm.weight": torch.ones(8, dtype=torch.bfloat16)}
    write(name, said.to_dict(), tensors | norm, {key: restored}, {key: weight} | norm)


def deepseek_v4(name, said):
    """Experts of packed 4-bit floats, and others of 8 bits, with scales that are called `scale`."""
    tensors, expected, original = {}, {}, {}
    for module, weight in LAYER.items():
        path = f"layers.0.ffn.experts.0.{V4_NAMES[module]}."
        weight = weight.to(torch.bfloat16)
        groups = weight.float().reshape(len(weight), -1, 32)
        exponent = torch.ceil(torch.log2(groups.abs().amax(-1) / 6))
        scale = torch.exp2(exponent).to(torch.float8_e8m0fnu)
        codes = (groups / torch.exp2(exponent)[..., None] - E2M1[:, None, None, None]).abs()
        codes = codes.argmin(0).reshape(weight.shape).to(torch.uint8)
        packed = (codes[:, 1::2] << 4 | codes[:, ::2]).view(torch.int8)
        tensors |= {f"{path}weight": packed, f"{path}scale": scale}
        original[f"{path}weight"] = weight
        expected[f"{path}weight"] = operation(Fp8Dequantize, said)._dequantize_one(packed, scale)
    key, weight = "layers.0.attn.wq_a.weight", QUERY[:16, :64].to(torch.bfloat16)
    found = operation(Fp8Quantize, said).convert({key: weight})
    scale = found[f"{key}_scale_inv"]
    tensors |= {key: found[key], "layers.0.attn.wq_a.scale": scale}
    original[key] = weight
    expected[key] = operation(Fp8Dequantize, said)._dequantize_one(found[key], scale)
    norm = {"layers.0.attn.q_norm.scale": torch.ones(8, dtype=torch.bfloat16)}
    write(name, said.to_dict(), tensors | norm, expected, original | norm)


def channels(name):
    """One scale a row, by FBGEMM's formula."""
    tensors, expected, original = {}, {}, {}
    for module, weight in LAYER.items():
        key = f"model.layers.0.mlp.{module}.weight"
        original[key] = weight.to(torch.bfloat16)
        largest = original[key].float().abs().amax(1, keepdim=True).clamp(min=1e-12)
        code = (original[key].float() * (LARGEST / largest)).clamp(-LARGEST, LARGEST).to(FP8)
        scale = 1 / (LARGEST / largest)
        tensors |= {key: code, f"{key}_scale": scale}
        expected[key] = code.float() * scale
    said = FbgemmFp8Config(modules_to_not_convert=["lm_head"]).to_dict()
    write(name, said, tensors, expected, original)


def tensors_with_inputs(name):
    """One scale a tensor, and one of its inputs, by AutoFP8's formula."""
    tensors, expected, original = {}, {}, {}
    for module, weight in LAYER.items():
        key = f"model.layers.0.mlp.{module}.weight"
        original[key] = weight.to(torch.float16)
        low, high = original[key].aminmax()
        largest = torch.maximum(low.abs(), high.abs())
        factor = LARGEST / largest.clamp(min=1e-12)
        code = (original[key] * factor).clamp(-LARGEST, LARGEST).to(FP8)
        scale = factor.float().reciprocal()
        tensors |= {key: code, f"{key}_scale": scale}
        tensors[key.replace("weight", "input_scale")] = torch.tensor(0.02)
        expected[key] = code.float() * scale
    said = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}
    write(name, said, tensors, expected, original)


if __name__ == "__main__":
    skipped = ["lm_head", "down_proj"]
    llama(
        "llama-blocks",
        FineGrainedFP8Config(weight_block_size=(8, 8), modules_to_not_convert=skipped),
    )
    llama(
        "llama-tensor-static",
        FineGrainedFP8Config(
            weight_block_size=None, activation_scheme="static", modules_to_not_convert=skipped
        ),
    )
    blocks("blocks-cut-off", FineGrainedFP8Config(weight_block_size=(8, 96)))
    blocks(
        "blocks-powers-of-two", FineGrainedFP8Config(weight_block_size=(4, 32), scale_fmt="ue8m0")
    )
    blocks(
        "mxfp8-as-bytes",
        FineGrainedFP8Config(weight_block_size=(1, 32), scale_fmt="ue8m0"),
        torch.bfloat16,
        as_bytes=True,
    )
    stacked("stacked-experts", FineGrainedFP8Config(weight_block_size=(8, 32)))
    deepseek_v4(
        "deepseek-v4",
        FineGrainedFP8Config(weight_block_size=(8, 32), scale_fmt="ue8m0", expert_dtype="fp4"),
    )
    channels("channel")
    tensors_with_inputs("tensor")

# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch==2.13.0",
#   "nvidia-modelopt==0.47.0",
#   "transformers==5.23.0",
#   "accelerate",
#   "requests",
#   "ml_dtypes==0.6.0",
#   "numpy==2.4.6",
#   "safetensors==0.8.0",
# ]
# ///
"""Golden ModelOpt checkpoints of a tiny Llama: quantize with calibration, export_hf_checkpoint.

Expected values are those of ModelOpt's FP8QTensor and NVFP4QTensor, with float32 as the type they
compute in; times pre_quant_scale, by which its forward multiplies the inputs of such a layer.
Rounding to NVFP4 in the forward, which AWQ's search needs, is a CUDA kernel; ModelOpt's own
NVFP4QTensor takes its place.
"""

from copy import deepcopy
from pathlib import Path

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.quantization import tensor_quant
from modelopt.torch.quantization.qtensor import FP8QTensor, NVFP4QTensor
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
DATA = load_file(HERE.parents[1] / "data" / "minilm_slice.safetensors")
DENSE = DATA["encoder.layer.0.output.dense.weight"]
QUERY = DATA["encoder.layer.0.attention.self.query.weight"]


def nvfp4_round_trip(inputs, block_size, amax, *_):
    """What dynamic_block_quantize_op does for E2M1 under E4M3 scales."""
    double = (amax.max() / (6 * 448)).float()
    tensor, scale, _ = NVFP4QTensor.quantize(inputs, block_size, None, double)
    return tensor.dequantize(scale=scale, double_scale=double, block_sizes={-1: block_size})


tensor_quant.dynamic_block_quantize_op = nvfp4_round_trip


def with_rules(config, *rules):
    """The config, with rules for some quantizers added."""
    config = deepcopy(config)
    config["quant_cfg"] += rules
    return config


def llama():
    """A Llama of one layer whose weights are slices of trained ones."""
    config = LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
        tie_word_embeddings=False, dtype="bfloat16", architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    for i, (name, value) in enumerate(sorted(model.named_parameters())):
        if value.dim() == 2:
            source = QUERY if "attn" in name else DENSE
            rows, columns = value.shape
            value.data.copy_(source[:rows, 32 * i : 32 * i + columns])
    return model


def calibrate(model):
    torch.manual_seed(0)
    with torch.no_grad():
        model(torch.randint(0, 16, (4, 16)))


def dequantized(stored, module):
    """The values of one exported weight, float32."""
    weight, scale = stored[f"{module}.weight"], stored[f"{module}.weight_scale"]
    if weight.dtype == torch.uint8:
        shape = torch.Size((weight.shape[0], 2 * weight.shape[1]))
        tensor = NVFP4QTensor(shape, torch.float32, weight)
        values = tensor.dequantize(
            scale=scale, double_scale=stored[f"{module}.weight_scale_2"], block_sizes={-1: 16}
        )
    else:
        tensor = FP8QTensor(weight.shape, torch.float32, weight)
        values = tensor.dequantize(scale=scale[:, None] if scale.dim() else scale)
    pre = stored.get(f"{module}.pre_quant_scale")
    return values if pre is None else values * pre.float()


def write(case, config):
    model = llama()
    folder = HERE.parent / "modelopt" / case
    folder.mkdir(parents=True, exist_ok=True)
    original = {n: v.detach().clone().contiguous() for n, v in model.named_parameters()}
    mtq.quantize(model, config, calibrate)
    export_hf_checkpoint(model, export_dir=folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    stored = load_file(folder / "model.safetensors")
    modules = [n.removesuffix(".weight_scale") for n in stored if n.endswith(".weight_scale")]
    save_file(original, folder / "original.safetensors")
    expected = {f"{m}.weight": dequantized(stored, m).to(torch.bfloat16) for m in modules}
    save_file({n: v.contiguous() for n, v in expected.items()}, folder / "expected.safetensors")


KV = mtq.FP8_KV_CFG["quant_cfg"]
FP4 = next(r["cfg"] for r in mtq.NVFP4_DEFAULT_CFG["quant_cfg"] if "cfg" in r)

write("fp8-kv-cache", with_rules(mtq.FP8_DEFAULT_CFG, *KV))
write("fp8-channel", mtq.FP8_PER_CHANNEL_PER_TOKEN_CFG)
write("nvfp4", mtq.NVFP4_DEFAULT_CFG)
write("nvfp4-awq", mtq.NVFP4_AWQ_LITE_CFG)
write(
    "fp8-attention-nvfp4-mlp",
    with_rules(
        mtq.FP8_DEFAULT_CFG,
        {"quantizer_name": "*mlp*weight_quantizer", "cfg": FP4},
        {"quantizer_name": "*mlp*input_quantizer", "cfg": FP4},
    ),
)

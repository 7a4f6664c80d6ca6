# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch==2.13.0",
#   "bitsandbytes==0.50.2",
#   "transformers==5.23.0",
#   "accelerate",
#   "numpy==2.4.6",
#   "safetensors==0.8.0",
# ]
# ///
"""Golden bitsandbytes checkpoints: its modules' state, and what transformers saves of a Llama.

Expected values are those of its int8_vectorwise_dequant, and of the dequantize_4bit of its default
backend, in torch: on a CPU with AVX-512 its kernel takes wrong scales where the columns are no
multiple of the block size (cosine to the original .73 to .97, where torch's is .995). Where they
are, the two agree, and this asserts it.
"""

import json
import tempfile
from pathlib import Path

import bitsandbytes as bnb
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from bitsandbytes.nn.parametrize import replace_parameter_4bit
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
DATA = load_file(HERE.parents[1] / "data" / "minilm_slice.safetensors")
DENSE = DATA["encoder.layer.0.output.dense.weight"]
QUERY = DATA["encoder.layer.0.attention.self.query.weight"]
LAYER = {"down_proj": DENSE[:12, :160], "up_proj": QUERY[:20, :64], "odd_proj": QUERY[-7:, :33]}
CASES = {  # what is said of Params4bit, and the type of the weights
    "nf4": ({"quant_type": "nf4", "compress_statistics": False}, torch.bfloat16),
    "nf4-nested-blocks-of-32": (
        {"quant_type": "nf4", "compress_statistics": True, "blocksize": 32},
        torch.float16,
    ),
    "nf4-nested-stored-as-bf16": (
        {"quant_type": "nf4", "compress_statistics": True, "quant_storage": torch.bfloat16},
        torch.bfloat16,
    ),
    "fp4": ({"quant_type": "fp4", "compress_statistics": False}, torch.float32),
    "fp4-blocks-of-128-stored-as-f32": (
        {
            "quant_type": "fp4",
            "compress_statistics": False,
            "blocksize": 128,
            "quant_storage": torch.float32,
        },
        torch.float32,
    ),
}


def said_of(**said):
    return {"quantization_config": BitsAndBytesConfig(**said).to_dict()}


def dequantized(packed, state):
    scale = state.absmax
    if state.nested:
        scale = bnb.functional.dequantize_blockwise(scale, state.state2) + state.offset
    code = packed.reshape(-1).view(torch.uint8)
    values = _dequantize_4bit_compute.__wrapped__(
        code, scale, state.code, state.blocksize, state.shape, state.dtype
    )
    if state.shape[-1] % state.blocksize == 0:
        assert torch.equal(values, bnb.functional.dequantize_4bit(packed, state))
    return values


def write(name, tensors, expected, original, config=None):
    folder = HERE.parent / "bitsandbytes" / name
    folder.mkdir(parents=True, exist_ok=True)
    files = {"model": tensors, "expected": expected, "original": original}
    for file, content in files.items():
        content = {key: value.detach().contiguous() for key, value in content.items()}
        save_file(content, folder / f"{file}.safetensors", metadata={"format": "pt"})
    if config is not None:
        text = json.dumps(config, indent=1, sort_keys=True)
        (folder / "config.json").write_text(text + "\n")


def four_bits(name, said, dtype):
    """Linear4bit modules of one layer; of weights enough for two blocks of nested scales."""
    nested = "blocksize" in said and said["compress_statistics"]
    layer = {"down_proj": DENSE[:52, :160]} if nested else dict(LAYER)
    if said.get("quant_storage", torch.uint8) != torch.uint8:
        del layer["odd_proj"]  # fills no whole element of such a type
    norm = {"model.norm.weight": torch.ones(8, dtype=dtype)}
    tensors, expected, original = dict(norm), {}, dict(norm)
    for module, weight in layer.items():
        weight = weight.to(dtype).contiguous()
        linear = bnb.nn.Linear4bit(*weight.T.shape, bias=module == "up_proj", compute_dtype=dtype)
        linear.weight = bnb.nn.Params4bit(weight, requires_grad=False, **said)
        linear = linear.to("cpu")
        if linear.bias is not None:
            linear.bias.data = weight[:, 0].clone()
            original[f"model.layers.0.mlp.{module}.bias"] = linear.bias
        path = f"model.layers.0.mlp.{module}."
        tensors |= {path + key: value for key, value in linear.state_dict().items()}
        state = linear.weight.quant_state
        original[f"{path}weight"] = weight
        expected[f"{path}weight"] = dequantized(linear.weight.data, state)
    storage = str(said.get("quant_storage", torch.uint8)).removeprefix("torch.")
    config = said_of(
        load_in_4bit=True, bnb_4bit_quant_type=said["quant_type"], bnb_4bit_quant_storage=storage,
        bnb_4bit_use_double_quant=said["compress_statistics"],
    )  # fmt: skip
    write(name, tensors, expected, original, config)


def parameters():
    """Parameters that no Linear owns, as experts are."""
    experts = torch.nn.Module()
    weight = torch.stack([DENSE[:10, :64], DENSE[10:20, :64]]).to(torch.bfloat16)
    experts.gate_up_proj = torch.nn.Parameter(weight.clone(), requires_grad=False)
    replace_parameter_4bit(experts, "gate_up_proj", compress_statistics=True)
    path = "model.layers.0.mlp.experts."
    norm = {"model.norm.weight": torch.ones(8, dtype=torch.bfloat16)}
    tensors = norm | {path + key: value for key, value in experts.state_dict().items()}
    expected = {f"{path}gate_up_proj": experts.gate_up_proj}
    write("nf4-parameter", tensors, expected, norm | {f"{path}gate_up_proj": weight})


def llama(name, **said):
    """A Llama of one layer whose weights are slices of trained ones, saved by transformers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
        tie_word_embeddings=False, dtype="bfloat16",
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    for i, (parameter, value) in enumerate(sorted(model.named_parameters())):
        if value.dim() == 2:
            rows, columns = value.shape
            source = QUERY if "attn" in parameter else DENSE
            value.data.copy_(source[:rows, 24 * i : 24 * i + columns])
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "whole")
        original = load_file(Path(folder) / "whole" / "model.safetensors")
        quantized = AutoModelForCausalLM.from_pretrained(
            Path(folder) / "whole",
            quantization_config=BitsAndBytesConfig(**said),
            device_map="cpu",
            dtype=torch.bfloat16,
        )
        quantized.save_pretrained(Path(folder) / "small")
        tensors = load_file(Path(folder) / "small" / "model.safetensors")
        saved = json.loads((Path(folder) / "small" / "config.json").read_text())
    expected = {
        f"{path}.weight": restored(module)
        for path, module in quantized.named_modules()
        if isinstance(module, (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt))
    }
    write(name, tensors, expected, original, saved)


def restored(module):
    if isinstance(module, bnb.nn.Linear4bit):
        return dequantized(module.weight.data, module.weight.quant_state)
    scale = module.weight.SCB if module.weight.SCB is not None else module.state.SCB
    return bnb.functional.int8_vectorwise_dequant(module.weight.data, scale)


if __name__ == "__main__":
    for case, made_of in CASES.items():
        four_bits(case, *made_of)
    parameters()
    llama(
        "llama-nf4-nested", load_in_4bit=True, bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True, llm_int8_skip_modules=["lm_head", "self_attn.k_proj"],
    )  # fmt: skip
    llama("llama-int8", load_in_8bit=True)

# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch==2.13.0",
#   "GPTQModel==7.7.0",
#   "bitsandbytes==0.50.2",
#   "safetensors==0.8.0",
# ]
# ///
"""Golden bitsandbytes checkpoints with the names of GPTQModel: its BitsAndBytesLinear.

Expected values are those of its dequantize_weight, which are right on every CPU where the columns
are a multiple of the block size (see make_bitsandbytes.py).
"""

import json
from pathlib import Path

import torch
from gptqmodel.nn_modules.qlinear.bitsandbytes import BitsAndBytesLinear
from gptqmodel.quantization.config import BitsAndBytesConfig
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
DATA = load_file(HERE.parents[1] / "data" / "minilm_slice.safetensors")
LAYER = {
    "down_proj": DATA["encoder.layer.0.output.dense.weight"][:12, :128],
    "up_proj": DATA["encoder.layer.0.attention.self.query.weight"][:20, :64],
}


def make(name, **said):
    config = BitsAndBytesConfig(**said)
    tensors, expected, original = {}, {}, {}
    for module, weight in LAYER.items():
        linear = torch.nn.Linear(*weight.T.shape, bias=False, dtype=torch.float16)
        linear.weight.data = weight.to(torch.float16).contiguous()
        quantized = BitsAndBytesLinear(
            bits=config.bits, group_size=-1, sym=True, desc_act=False, bias=False,
            in_features=weight.shape[1], out_features=weight.shape[0],
            **config.quant_linear_init_kwargs(),
        )  # fmt: skip
        quantized.pack(linear, None, None)
        path = f"model.layers.0.mlp.{module}."
        tensors |= {path + key: value for key, value in quantized.state_dict().items()}
        original[f"{path}weight"] = linear.weight.data
        expected[f"{path}weight"] = quantized.dequantize_weight()
    folder = HERE.parent / "bitsandbytes" / name
    folder.mkdir(parents=True, exist_ok=True)
    files = {"model": tensors, "expected": expected, "original": original}
    for file, content in files.items():
        content = {key: value.contiguous() for key, value in content.items()}
        save_file(content, folder / f"{file}.safetensors", metadata={"format": "pt"})
    said = {key: value for key, value in config.to_dict().items() if key != "meta"}  # of its run
    text = json.dumps(said, indent=1, sort_keys=True)
    (folder / "quantize_config.json").write_text(text + "\n")


if __name__ == "__main__":
    make("gptqmodel-nf4-nested", bits=4, format="nf4")
    make("gptqmodel-int8", bits=8)

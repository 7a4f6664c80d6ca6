"""Slices of trained weights, and their grids, for the scripts of golden GPTQ and AWQ files."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
DATA = load_file(HERE.parents[1] / "data" / "minilm_slice.safetensors")
MODULES = {
    "model.layers.0.mlp.down_proj": DATA["encoder.layer.0.output.dense.weight"][:32, :128],
    "model.layers.0.mlp.up_proj": DATA["encoder.layer.0.attention.self.query.weight"][:64, :64],
}


SMALL = {name: weight[:32, :64] for name, weight in MODULES.items()}
RAGGED = {
    "model.layers.0.mlp.down_proj": MODULES["model.layers.0.mlp.down_proj"][:30, :100],
    "model.layers.0.mlp.up_proj": MODULES["model.layers.0.mlp.up_proj"][:20, :60],
}


def linear(weight, positive=False, dtype=torch.float16):
    """A layer with a bias; `positive`: every third run of 32 weights of a row is."""
    rows, columns = weight.shape
    layer = torch.nn.Linear(columns, rows).to(dtype)
    layer.weight.data = weight.to(dtype).clone()
    if positive:
        runs = layer.weight.data.view(-1, 32)
        runs[::3] = runs[::3].abs()
    layer.bias.data = (torch.arange(rows) / 64).to(dtype)
    return layer


def grid(weight, bits, group_size, sym):
    """(scale, zero point), each (rows, groups), by minima and maxima that include 0."""
    whole = torch.nn.functional.pad(weight.float(), (0, -weight.shape[1] % group_size))
    groups = whole.reshape(len(weight), -1, group_size)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    levels = 2**bits - 1
    if sym:
        high = torch.maximum(-low, high)
        return 2 * high / levels, torch.full_like(high, 2 ** (bits - 1))
    scale = (high - low) / levels
    return scale, torch.round(-low / scale)


def on_grid(layer, scale, zero, bits, group_size):
    """The layer with its weight rounded to the grid: what producers' quantizers hand to pack()."""
    columns = layer.weight.shape[1]
    s, z = (part.repeat_interleave(group_size, 1)[:, :columns] for part in (scale, zero))
    codes = torch.clamp(torch.round(layer.weight.data.float() / s) + z, 0, 2**bits - 1)
    rounded = linear(layer.weight.data, dtype=layer.weight.dtype)
    rounded.weight.data = ((codes - z) * s).to(layer.weight.dtype)
    return rounded


def write(name, tensors, expected, layers, config):
    folder = HERE.parent / name
    folder.mkdir(parents=True, exist_ok=True)
    original = {}
    for module, layer in layers.items():
        original |= {f"{module}.weight": layer.weight.data, f"{module}.bias": layer.bias.data}
    for file, content in (("model", tensors), ("expected", expected), ("original", original)):
        made = {key: value.detach().contiguous().clone() for key, value in content.items()}
        save_file(made, folder / f"{file}.safetensors")
    text = json.dumps({"quantization_config": config}, indent=1)
    (folder / "config.json").write_text(text + "\n")

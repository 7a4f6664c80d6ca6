"""Stands in for your converter: a small model, its INT4 copy, and a copy that went wrong."""

import numpy as np

from pytest_arrowquant import Mse, save_checkpoint

SHAPES = {"up_proj": (256, 128), "down_proj": (128, 256)}

generator = np.random.default_rng(0)
original = {
    f"model.layers.{layer}.mlp.{name}.weight": generator.standard_normal(shape, np.float32)
    for layer in range(2)
    for name, shape in SHAPES.items()
}
quantized = {name: Mse().quantize(weight, 4) for name, weight in original.items()}

save_checkpoint("original.safetensors", original)
save_checkpoint("int4.safetensors", quantized)

scale = quantized["model.layers.1.mlp.down_proj.weight"].decoding.scale
scale[:] = np.roll(scale, 1, axis=0)  # every row gets the scales of the row before
save_checkpoint("broken.safetensors", quantized)

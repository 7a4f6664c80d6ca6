# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "mlx[cpu]==0.32.4",
#   "mlx-lm==0.32.2",
#   "ml_dtypes==0.6.0",
#   "numpy==2.4.6",
#   "safetensors==0.8.0",
# ]
# ///
"""Golden MLX checkpoints of a tiny Llama and a tiny Mixtral: quantize_model and save of mlx-lm.

Expected values are those of mx.dequantize.
"""

from pathlib import Path

import ml_dtypes
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models import llama, mixtral
from mlx_lm.utils import quantize_model, save_config, save_model
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).parent
DATA = load_file(HERE.parents[1] / "data" / "minilm_slice.safetensors")
DENSE = DATA["encoder.layer.0.output.dense.weight"]
QUERY = DATA["encoder.layer.0.attention.self.query.weight"]
SMALL = {
    "vocab_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
    "head_dim": 4, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "tie_word_embeddings": False,
}  # fmt: skip


def filled(model, dtype):
    """The model with slices of trained weights, [..., out, in], and what they were."""
    weights = []
    for i, (name, value) in enumerate(sorted(tree_flatten(model.parameters()))):
        if value.ndim >= 2:
            source = (QUERY if "attn" in name else DENSE).reshape(-1)
            part = source[384 * i : 384 * i + value.size].astype(np.float32)
            value = mx.array(part.reshape(value.shape))
        weights.append((name, value.astype(dtype)))
    model.update(tree_unflatten(weights))
    return dict(weights)


def array(value):
    if value.dtype == mx.bfloat16:
        return np.array(value.astype(mx.float32)).astype(ml_dtypes.bfloat16)
    return np.array(value)


def apart(tensors):
    """As numpy arrays; Mixtral's experts under their own names, which mlx-lm stacks."""
    found = {}
    for name, value in tensors.items():
        head, stacked, kind = name.partition(".switch_mlp.")
        if stacked:
            letter = {"gate": "w1", "down": "w2", "up": "w3"}[kind.split("_")[0]]
            found |= {f"{head}.experts.{e}.{letter}.weight": array(v) for e, v in enumerate(value)}
        else:
            found[name] = array(value)
    return found


def dequantized(module):
    how = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
    scale = module.get("global_scale")
    if scale is None:
        return mx.dequantize(module["weight"], module["scales"], module.get("biases"), **how)
    return mx.stack([
        mx.dequantize(module["weight"][e], module["scales"][e], global_scale=scale[e], **how)
        for e in range(len(scale))
    ])  # fmt: skip


def write(case, family, config, *, dtype, group_size=None, bits=None, mode="affine", predicate=None,
          global_scale=False):  # fmt: skip
    config = {**SMALL, **config}
    model = family.Model(family.ModelArgs.from_dict(config))
    original = filled(model, dtype)
    model, config = quantize_model(
        model, config, group_size, bits, mode, global_scale, quant_predicate=predicate
    )
    folder = HERE.parent / "mlx" / case
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, model)
    save_config(config, folder / "config.json")
    modules = {name: m for name, m in model.named_modules() if m.get("scales") is not None}
    expected = {f"{name}.weight": array(dequantized(module)) for name, module in modules.items()}
    save_file(apart(original), folder / "original.safetensors")
    save_file(expected, folder / "expected.safetensors")


LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 8}
WIDTHS = {"q_proj": 2, "k_proj": 3, "v_proj": 5, "gate_proj": 6, "up_proj": 8}
MODES = {
    "q_proj": {"group_size": 32, "bits": 8, "mode": "mxfp8"},
    "gate_proj": {"group_size": 16, "bits": 4, "mode": "nvfp4"},
}


def widths(path, module):
    """A width of its own for each kind of projection; the head stays as it is."""
    if path.endswith("lm_head"):
        return False
    bits = WIDTHS.get(path.rsplit(".", 1)[-1])
    return {"group_size": 32, "bits": bits} if bits else True


def modes(path, module):
    return MODES.get(path.rsplit(".", 1)[-1], True)


write(
    "affine-4bit-g64", llama, {**LLAMA, "hidden_size": 128},
    dtype=mx.bfloat16, group_size=64, bits=4,
)  # fmt: skip
write(
    "affine-2-3-4-5-6-8bit-g32", llama, LLAMA,
    dtype=mx.float32, group_size=32, bits=4, predicate=widths,
)  # fmt: skip
write(
    "mxfp4-mxfp8-nvfp4", llama, {**LLAMA, "intermediate_size": 16},
    dtype=mx.bfloat16, mode="mxfp4", predicate=modes,
)  # fmt: skip
MIXTRAL = {
    "model_type": "mixtral", "hidden_size": 32, "intermediate_size": 16, "num_local_experts": 2,
    "num_experts_per_tok": 1, "num_attention_heads": 4,
}  # fmt: skip
write("switch-affine-3bit-g32", mixtral, MIXTRAL, dtype=mx.float16, group_size=32, bits=3)
write(
    "switch-nvfp4-global-scale", mixtral, MIXTRAL,
    dtype=mx.bfloat16, mode="nvfp4", global_scale=True,
)  # fmt: skip

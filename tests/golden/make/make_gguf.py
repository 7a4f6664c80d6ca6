# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "gguf==0.19.0",
#   "libgguf==0.2.2",
#   "ml_dtypes==0.6.0",
#   "numpy==2.4.6",
#   "safetensors==0.8.0",
# ]
# ///
"""Golden GGUF files: the container by `gguf`, the codes by `libgguf`.

`gguf` itself writes no K-quants and no i-quants. `libgguf` is ggml's C code for all types as a
package of its own; its dequantize_rows gives the expected values. The script stops where gguf's
numpy quantizer, as far as it goes, or its dequantizer gives other bits.
"""

from pathlib import Path

import gguf
import libgguf
import ml_dtypes  # noqa: F401  (registers bfloat16)
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import quants
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).parent
WEIGHTS = load_file(HERE.parents[1] / "data" / "minilm_slice.safetensors")
DENSE = WEIGHTS["encoder.layer.0.output.dense.weight"]
QUERY = WEIGHTS["encoder.layer.0.attention.self.query.weight"]
BIAS = WEIGHTS["encoder.layer.0.attention.self.query.bias"]

LEGACY = (Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0)
K = (Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K)
I = (  # noqa: E741
    Type.IQ1_S, Type.IQ1_M, Type.IQ2_XXS, Type.IQ2_XS, Type.IQ2_S, Type.IQ3_XXS, Type.IQ3_S,
    Type.IQ4_NL, Type.IQ4_XS,
)  # fmt: skip
FLOATING = (Type.MXFP4, Type.NVFP4)
TERNARY = (Type.TQ1_0, Type.TQ2_0)


def quantized(weight: np.ndarray, kind: Type) -> np.ndarray:
    """The bytes of a weight, [rows, bytes of a row]."""
    rows = np.ascontiguousarray(weight.reshape(-1, weight.shape[-1]), np.float32)
    importance = None
    if libgguf.quantize_requires_imatrix(kind):
        importance = np.mean(rows**2, axis=0)
    codes = np.asarray(libgguf.quantize_rows(rows, kind, importance)).view(np.uint8)
    codes = codes.reshape(*weight.shape[:-1], -1)
    try:
        assert np.array_equal(quants.quantize(rows, kind).reshape(codes.shape), codes), kind.name
    except NotImplementedError:
        assert kind not in LEGACY
    return codes


def dequantized(codes: np.ndarray, kind: Type, shape: tuple[int, ...]) -> np.ndarray:
    rows = np.ascontiguousarray(codes.reshape(-1, codes.shape[-1]))
    values = np.asarray(libgguf.dequantize_rows(rows, kind, n_per_row=shape[-1])).reshape(shape)
    assert np.array_equal(quants.dequantize(codes, kind), values), kind.name
    return values


def started(folder, blocks=1, splits=0, heads=(0, 0)):
    folder.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama", split_max_tensors=splits)
    writer.add_block_count(blocks)
    writer.add_embedding_length(256)
    if heads[0]:
        writer.add_head_count(heads[0])
        writer.add_head_count_kv(heads[1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<s>", "</s>", "der", "die"])
    return writer


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def save(folder, original, expected):
    original = {name: np.ascontiguousarray(weight) for name, weight in original.items()}
    save_file(original, folder / "original.safetensors")
    save_file(expected, folder / "expected.safetensors")


def write(case, tensors, kinds, original, **said):
    """One case: `tensors` as they go into the file, `original` as they were before."""
    folder = HERE.parent / "gguf" / case
    writer = started(folder, **said)
    expected = {}
    for name, weight in tensors.items():
        kind = kinds.get(name)
        if kind is None:
            writer.add_tensor(name, weight.astype(np.float32))
        elif kind in (Type.F16, Type.BF16):
            writer.add_tensor(
                name, quants.quantize(weight.astype(np.float32), kind), raw_dtype=kind
            )
        else:
            codes = quantized(weight, kind)
            writer.add_tensor(name, codes, raw_dtype=kind)
            expected[name] = dequantized(codes, kind, weight.shape)
    finish(writer)
    save(folder, original, expected)


def ternary(weight):
    """-1, 0 and 1 times the mean magnitude, as models of 1.58 bits are trained to be."""
    scale = np.mean(np.abs(weight), dtype=np.float32)
    return (np.rint(weight / scale).clip(-1, 1) * scale).astype(weight.dtype)


def one_a_block(case, kinds, rows, columns, splits=0, made=np.asarray):
    """A down projection of each type, in a block of its own."""
    names = [f"blk.{i}.ffn_down.weight" for i in range(len(kinds))]
    weights = [
        made(DENSE[rows * i : rows * (i + 1), 64 * i : 64 * i + columns]) for i in range(len(kinds))
    ]
    write(
        case,
        dict(zip(names, weights, strict=True)),
        dict(zip(names, kinds, strict=True)),
        {f"model.layers.{i}.mlp.down_proj.weight": w for i, w in enumerate(weights)},
        blocks=len(kinds),
        splits=splits,
    )


def permuted(weight, heads):
    """LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def llama(case):
    """A mixture as llama-quantize makes of a Llama, rows of Q and K permuted."""
    q, k, v = QUERY[:8, :256], QUERY[8:12, :256], QUERY[12:14, 100:356]
    down, embedding = DENSE[:1, :512], DENSE[8:10, 512:768]
    norm, bias = DENSE[20, :256], BIAS[:8]
    layer = "model.layers.0"
    write(
        case,
        {
            "token_embd.weight": embedding,
            "blk.0.attn_norm.weight": norm,
            "blk.0.attn_q.weight": permuted(q, 2),
            "blk.0.attn_q.bias": permuted(bias, 2),
            "blk.0.attn_k.weight": permuted(k, 1),
            "blk.0.attn_v.weight": v,
            "blk.0.ffn_down.weight": down,
        },
        {
            "token_embd.weight": Type.Q6_K,
            "blk.0.attn_q.weight": Type.Q4_K,
            "blk.0.attn_k.weight": Type.Q4_K,
            "blk.0.attn_v.weight": Type.F16,
            "blk.0.ffn_down.weight": Type.Q6_K,
        },
        {
            "model.embed_tokens.weight": embedding,
            f"{layer}.input_layernorm.weight": norm,
            f"{layer}.self_attn.q_proj.weight": q,
            f"{layer}.self_attn.q_proj.bias": bias,
            f"{layer}.self_attn.k_proj.weight": k,
            f"{layer}.self_attn.v_proj.weight": v,
            f"{layer}.mlp.down_proj.weight": down,
        },
        heads=(2, 1),
    )


def experts(case):
    """Two experts stacked in one tensor, as for Mixtral."""
    up = DENSE[:8, :256].reshape(2, 4, 256)
    down = DENSE[8:14, 256:352].reshape(2, 3, 96)
    mixtral = "model.layers.0.block_sparse_moe.experts"
    write(
        case,
        {"blk.0.ffn_up_exps.weight": up, "blk.0.ffn_down_exps.weight": down},
        {"blk.0.ffn_up_exps.weight": Type.Q4_K, "blk.0.ffn_down_exps.weight": Type.Q8_0},
        {
            **{f"{mixtral}.{e}.w3.weight": up[e] for e in range(2)},
            **{f"{mixtral}.{e}.w2.weight": down[e] for e in range(2)},
        },
    )


def scaled(case):
    """NVFP4 under a scale of the tensor, or of each expert, as llama.cpp converts ModelOpt's."""
    down, up = DENSE[:3, :128], DENSE[8:14, 128:192].reshape(2, 3, 64)
    scales = [np.array([0.03], np.float32), np.array([0.01, 0.02], np.float32)]
    folder = HERE.parent / "gguf" / case
    writer = started(folder, blocks=2)
    expected = {}
    for name, weight, scale in zip(("ffn_down", "ffn_up_exps"), (down, up), scales, strict=True):
        factor = scale.reshape(-1, *[1] * (weight.ndim - 1))
        codes = quantized(weight.astype(np.float32) / factor, Type.NVFP4)
        writer.add_tensor(f"blk.0.{name}.weight", codes, raw_dtype=Type.NVFP4)
        writer.add_tensor(f"blk.0.{name}.scale", scale)
        writer.add_tensor(f"blk.0.{name}.input_scale", scale)
        values = dequantized(codes, Type.NVFP4, weight.shape)
        expected[f"blk.0.{name}.weight"] = values * factor
    finish(writer)
    layer = "model.layers.0"
    experts = {f"{layer}.block_sparse_moe.experts.{e}.w3.weight": up[e] for e in range(2)}
    save(folder, {f"{layer}.mlp.down_proj.weight": down, **experts}, expected)


one_a_block("q4-q5-q8", LEGACY, 3, 96)
one_a_block("k-quants", K, 2, 256)
one_a_block("i-quants", I, 2, 256)
one_a_block("mxfp4-nvfp4", FLOATING, 3, 128)
one_a_block("ternary", TERNARY, 2, 256, made=ternary)
llama("llama-q4_k_m")
one_a_block("split", (Type.Q4_0, Type.Q8_0, Type.BF16), 3, 64, splits=1)
experts("mixtral-q4_k-experts")
scaled("nvfp4-scale")

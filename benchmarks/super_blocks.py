"""Accuracy at equal bits, and speed, of super-blocks and others: the tables of docs/quantizers.md.

    python benchmarks/super_blocks.py [checkpoint.safetensors ...]

A line is a width, a quantizer and a source: bits per weight and SQNR over all its tensors, the
SQNR of its worst tensor, and million weights a second of one thread. With HQQ if the `hqq` package
is installed, and ggml's K-quants if GGML_QUANTS names a shared library made of ggml-quants.c; these
take every tensor as one row, padded with zeros to whole super-blocks.
"""

import ctypes
import importlib.util
import os
import sys
import time
from pathlib import Path

import numpy as np

from pytest_arrowquant import Mse, Rtn
from pytest_arrowquant.checkpoints import open_checkpoint
from pytest_arrowquant.quantizers.mse import COMPACT
from pytest_arrowquant.super_blocks import SuperBlocks
from pytest_arrowquant.vocabulary import WIDTHS

WHOLE = 256  # weights of a K-quant's super-block
K_QUANTS = {2: ("q2_K", 84), 4: ("q4_K", 144)}  # name, bytes of a super-block


def built_in(quantizer):
    def run(weight, bits):
        q = quantizer.quantize(weight, bits)
        return q.dequantize(), q.nbytes

    return run


def padded(weight):
    flat = np.zeros(-(-weight.size // WHOLE) * WHOLE, np.float32)
    flat[: weight.size] = weight.reshape(-1)
    return flat


def k_quants(library):
    functions = ctypes.CDLL(library)

    def run(weight, bits):
        (name, block), flat = K_QUANTS[bits], padded(weight)
        packed, restored = np.empty(flat.size // WHOLE * block, np.uint8), np.empty_like(flat)
        quantize, dequantize = f"quantize_row_{name}_ref", f"dequantize_row_{name}"
        size = ctypes.c_int64(flat.size)
        for step, source, target in ((quantize, flat, packed), (dequantize, packed, restored)):
            pointers = (ctypes.c_void_p(part.ctypes.data) for part in (source, target))
            getattr(functions, step)(*pointers, size)
        return restored[: weight.size].reshape(weight.shape), packed.nbytes

    return run


def hqq(weight, bits):
    import torch
    from hqq.core.quantize import Quantizer

    torch.set_num_threads(1)
    groups = torch.from_numpy(padded(weight)).reshape(-1, 64)
    options = {"nbits": bits, "group_size": 64, "axis": 1, "device": "cpu"}
    codes, meta = Quantizer.quantize(groups, compute_dtype=torch.float32, **options)
    restored = Quantizer.dequantize(codes, meta).numpy().reshape(-1)[: weight.size]
    return restored.reshape(weight.shape), weight.size * bits // 8 + -(-weight.size // 64) * 4


def quantizers(bits):
    """(name, function) of all that there is at a width."""
    yield "COMPACT", built_in(COMPACT[bits])
    if bits < 8:
        yield "mse, g20, SuperBlocks(4, 64)", built_in(Mse(20, super_blocks=SuperBlocks(4, 64)))
    yield "mse, g64", built_in(Mse())
    yield "rtn, g64, float minimum", built_in(Rtn(zero="float"))
    if "GGML_QUANTS" in os.environ and bits in K_QUANTS:
        yield K_QUANTS[bits][0].upper(), k_quants(os.environ["GGML_QUANTS"])
    if importlib.util.find_spec("hqq"):
        yield "HQQ, g64", hqq


def sources(paths):
    """(name, weights as float32) of each checkpoint and distribution."""
    rng, shape = np.random.default_rng(5), (1024, 1024)
    yield "Gaussian", [rng.standard_normal(shape).astype(np.float32)]
    yield "Student's t, 5 degrees", [rng.standard_t(5, shape).astype(np.float32)]
    for path in paths:
        tensors = open_checkpoint(path).quantizable
        yield path.stem, [tensor.weight.astype(np.float32) for tensor in tensors]


def line(weights, bits, run):
    """(bits per weight, pooled SQNR, the worst tensor's, million weights a second)."""
    energies, errors, nbytes, seconds = [], [], 0, 0.0
    run(weights[0][:1], bits)  # compiled before the clock starts
    for weight in weights:
        started = time.process_time()  # on all threads
        restored, stored = run(weight, bits)
        seconds += time.process_time() - started
        wide = weight.astype(np.float64)
        energies.append((wide**2).sum())
        errors.append(((wide - restored) ** 2).sum())
        nbytes += stored
    count = sum(weight.size for weight in weights)
    ratios = np.array([sum(energies), *energies]) / np.array([sum(errors), *errors])
    pooled, *each = 10 * np.log10(ratios)
    return nbytes * 8 / count, pooled, min(each), count / seconds / 1e6


def main(paths):
    print("| bits | weights | quantizer | bits per weight | SQNR | worst tensor | M weights/s |")
    print("|---|---|---|---|---|---|---|")
    for name, weights in sources(paths):
        for bits in WIDTHS:
            for label, run in quantizers(bits):
                figures = line(weights, bits, run)
                cells = " | ".join(f"{f:.{p}f}" for f, p in zip(figures, (3, 2, 2, 0), strict=True))
                print(f"| {bits} | {name} | {label} | {cells} |", flush=True)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])

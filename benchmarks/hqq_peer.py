"""HQQ and R2Q beside the package hqq, as the tables of docs/quantizers.md: accuracy, then speed.

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 python benchmarks/hqq_peer.py [threads]

Needs torch and hqq. The settings of malloc let torch keep its pages; without them the package takes
several times as long. Timings alternate; printed are medians and the median of the ratios.
"""

import os
import sys
import time

import numpy as np
import torch
from hqq.core.quantize import Quantizer

from pytest_arrowquant import Hqq, R2q, Rtn
from pytest_arrowquant.cores import spread

ROUNDS = 5


def package(weight, bits, bitpack=True):
    tensor = torch.from_numpy(weight)
    return Quantizer.quantize(
        tensor, nbits=bits, group_size=64, axis=1, bitpack=bitpack, device="cpu"
    )


def restored_by_package(weight, bits):
    codes, meta = package(weight, bits, bitpack=False)
    return ((codes.float() - meta["zero"]) * meta["scale"]).reshape(weight.shape).numpy()


def relative_error(weight, restored):
    error = weight.astype(float) - restored
    return np.sum(error**2) / np.sum(weight.astype(float) ** 2)


def accuracy():
    rng = np.random.default_rng(3)
    for name, drawn in [
        ("gaussian", rng.standard_normal((1024, 1024))),
        ("t5", rng.standard_t(5, (1024, 1024))),
    ]:
        for std in (1.0, 0.02):
            weight = (drawn * std).astype(np.float32)
            for bits in (2, 4, 8):
                restored = {
                    "rtn": Rtn(zero="float").quantize(weight, bits).dequantize(),
                    "package": restored_by_package(weight, bits),
                    "hqq": Hqq().quantize(weight, bits).dequantize(),
                }
                errors = {who: f"{relative_error(weight, v):.4g}" for who, v in restored.items()}
                print(name, std, bits, errors)


def seconds(job):
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def speed(threads):
    torch.set_num_threads(threads)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    weight = np.random.default_rng(0).standard_normal((4096, 4096), np.float32) * np.float32(0.02)
    parts = np.split(weight, threads)

    def ours(quantizer, bits):
        return lambda: spread(lambda part: quantizer.quantize(part, bits), parts, len)

    jobs = {
        "package 2": lambda: package(weight, 2),
        "package 4": lambda: package(weight, 4),
        "hqq 2": ours(Hqq(), 2),
        "hqq 4": ours(Hqq(), 4),
        "r2q 2": ours(R2q(), 2),
    }
    for job in jobs.values():
        job()
    taken = {name: [] for name in jobs}
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            taken[name].append(seconds(job))
    for name, times in taken.items():
        ratios = np.array(taken[f"package {name[-1]}"]) / times
        print(f"{threads} threads, {name}: {np.median(times):.3f} s, {np.median(ratios):.1f} times")


if __name__ == "__main__":
    accuracy()
    speed(int(sys.argv[1]) if len(sys.argv) > 1 else 1)

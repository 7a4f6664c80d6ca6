"""What an audit costs beside reading: a sharded bfloat16 model and its INT4 copy.

    python benchmarks/audit_speed.py FOLDER [LAYERS]

Makes the two once in FOLDER: 10 layers of a 7B model, 4.3 and 1.5 GiB.

Prints, of one run with a warm page cache: the speed of a kernel that only sums the bytes of both
checkpoints (vectorised), that of one that sums the weights in order in float64 (not vectorised),
the audit in this process without pytest, and `pytest --arrowquant-accuracy` serial and with -n 2,
each with its peak memory: RssAnon (the processes' own, together) and VmHWM (of the largest, the
mapped checkpoint included).
"""

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import ml_dtypes
import numba
import numpy as np
from processes import accuracy_run, run
from safetensors.numpy import save_file

from pytest_arrowquant import Scheme, quantize
from pytest_arrowquant.audit import Audit
from pytest_arrowquant.checkpoints import open_checkpoint

HIDDEN, WIDE, VOCABULARY, GROUP = 4096, 11008, 32000, 128
SHAPES = {
    **{f"self_attn.{role}_proj": (HIDDEN, HIDDEN) for role in "qkvo"},
    "mlp.gate_proj": (WIDE, HIDDEN),
    "mlp.up_proj": (WIDE, HIDDEN),
    "mlp.down_proj": (HIDDEN, WIDE),
}
CONFIG = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 4,
                "type": "int",
                "symmetric": True,
                "strategy": "group",
                "group_size": GROUP,
            },
        }
    },
    "ignore": ["lm_head"],
}


def drawn(generator: np.random.Generator, shape: tuple[int, int]) -> Any:
    weight = generator.standard_normal(shape, np.float32)
    weight *= 0.02
    return weight.astype(ml_dtypes.bfloat16)


def quantized(weight: Any) -> dict[str, Any]:
    made = quantize(weight, Scheme(4, "none", GROUP))
    scale = made.decoding.arrays(made.layout)[0]  # type: ignore[attr-defined]
    return {
        "weight_packed": made.codes.view(np.int32),
        "weight_scale": scale.astype(ml_dtypes.bfloat16),
        "weight_shape": np.array(weight.shape, np.int64),
    }


def layers(count: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The tensors of a layer and of its copy; the first and last have embedding and head."""
    generator = np.random.default_rng(0)
    for index in range(count):
        whole: dict[str, Any] = {}
        copy: dict[str, Any] = {}
        for role, shape in SHAPES.items():
            name = f"model.layers.{index}.{role}"
            whole[f"{name}.weight"] = drawn(generator, shape)
            copy |= {f"{name}.{k}": v for k, v in quantized(whole[f"{name}.weight"]).items()}
        ends = {0: "model.embed_tokens.weight", count - 1: "lm_head.weight"}
        if index in ends:
            whole[ends[index]] = copy[ends[index]] = drawn(generator, (VOCABULARY, HIDDEN))
        yield whole, copy


def make(folder: Path, count: int) -> None:
    indices: dict[str, dict[str, str]] = {"original": {}, "int4": {}}
    for kind in indices:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number, pair in enumerate(layers(count), 1):
        shard = f"model-{number:05}-of-{count:05}.safetensors"
        for kind, tensors in zip(indices, pair, strict=True):
            save_file(tensors, folder / kind / shard)
            indices[kind] |= dict.fromkeys(tensors, shard)
    for kind, weight_map in indices.items():
        index = folder / kind / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": weight_map}))
    (folder / "int4/config.json").write_text(json.dumps({"quantization_config": CONFIG}))


@numba.njit(fastmath={"reassoc"})
def sum_of_words(words: Any) -> int:
    total = np.uint64(0)
    for i in range(words.size):
        total += words[i]
    return total


@numba.njit
def sum_in_order(halves: Any) -> float:
    total = 0.0
    for i in range(halves.size):
        total += np.uint32(np.uint32(halves[i]) << np.uint32(16)).view(np.float32)
    return total


def read(kernel: Any, dtype: type, *paths: Path) -> float:
    """Seconds to put all tensors through a kernel."""
    start = time.perf_counter()
    for path in paths:
        for tensor in open_checkpoint(path).tensors.values():
            raw = tensor.raw[: tensor.raw.size // 8 * 8]
            kernel(np.frombuffer(raw, dtype))
    return time.perf_counter() - start


def in_process(original: Path, copy: Path) -> float:
    start = time.perf_counter()
    audit = Audit(copy, original)
    failures = [audit.judge(pair, {}, {})[1] for pair in audit.pairing.pairs]
    assert not any(failures), failures
    return time.perf_counter() - start


def by_pytest(folder: Path, *options: str) -> str:
    """Wall time of a whole run, and its memory."""
    command = accuracy_run(
        f"--arrowquant-original={folder / 'original'}",
        f"--arrowquant-quantized={folder / 'int4'}",
        *options,
    )
    (folder / "empty").mkdir(exist_ok=True)
    done = run(command, folder / "empty")
    last = done.output.strip().splitlines()[-1]
    print(last)
    within = re.findall(r"in ([\d.]+)s", last)[-1]
    return (
        f"{done.wall_s:.1f} s wall ({within} s by pytest's own count), memory: RssAnon "
        f"{done.anonymous_mib:.0f} MiB of all processes, VmHWM {done.resident_mib:.0f} MiB of one"
    )


def main(folder: Path, count: int) -> None:
    if not (folder / "int4/config.json").is_file():
        make(folder, count)
    original, copy = folder / "original", folder / "int4"
    size = sum(
        t.stored_bytes for p in (original, copy) for t in open_checkpoint(p).tensors.values()
    )
    rounds = 3
    fast = median(read(sum_of_words, np.uint64, original, copy) for _ in range(rounds))
    slow = median(read(sum_in_order, np.uint16, original, copy) for _ in range(rounds))
    audited = median(in_process(original, copy) for _ in range(rounds))
    for what, seconds in (("sum of words", fast), ("sum in order", slow), ("audit", audited)):
        print(
            f"{what:14} {seconds:7.2f} s  {size / seconds / 1e9:6.2f} GB/s  "
            f"{fast / seconds:6.1%} of the one, {slow / seconds:6.1%} of the other sum"
        )
    print("pytest:", by_pytest(folder))
    print("pytest -n 2:", by_pytest(folder, "-n", "2"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10)

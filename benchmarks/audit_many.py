"""How fast 50,000 tensors of a few elements are collected and audited, beside empty tests.

    python benchmarks/audit_many.py FOLDER [TENSORS]

Makes the checkpoints in FOLDER once: experts of 4 x 8 weights in bfloat16, and 4-bit copies.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
from audit_speed import CONFIG, quantized
from safetensors.numpy import save_file

EXPERTS = 100
EMPTY = """
import pytest

@pytest.mark.parametrize("name", [f"test {{i}}" for i in range({count})])
def test_empty(name):
    pass
"""


def make(folder: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    whole, copy = {}, {}
    for index in range(count):
        name = f"model.layers.{index // EXPERTS}.mlp.experts.{index % EXPERTS}.up_proj"
        weight = generator.standard_normal((4, 8), np.float32).astype(ml_dtypes.bfloat16)
        whole[f"{name}.weight"] = weight
        copy |= {f"{name}.{part}": array for part, array in quantized(weight).items()}
    for kind, tensors in (("original", whole), ("int4", copy)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / kind / "model.safetensors")
    (folder / "int4/config.json").write_text(json.dumps({"quantization_config": CONFIG}))
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "empty" / "test_empty.py").write_text(EMPTY.format(count=count))


def run(folder: Path, what: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    last = (done.stdout.strip().splitlines() or [done.stderr])[-1]
    print(f"{what:24} {seconds:7.1f} s   {last}")


def main(folder: Path, count: int) -> None:
    if not (folder / "int4/config.json").is_file():
        make(folder, count)
    audit = (
        "--arrowquant-accuracy",
        "--arrowquant-original=original",
        "--arrowquant-quantized=int4",
        "--ignore=empty",
    )
    empty = ("empty/test_empty.py", "-p", "no:arrowquant")
    run(folder, "empty tests, collected", *empty, "--collect-only", "-qq")
    run(folder, "empty tests", *empty)
    run(folder, "audit, collected", *audit, "--collect-only", "-qq")
    run(folder, "audit", *audit)
    run(folder, "audit, -n 2", *audit, "-n", "2")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50_000)

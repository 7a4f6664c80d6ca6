"""The inner loops of the kernels work in registers of 256 or 512 bits, on x86 with AVX2."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llvmlite.binding import get_host_cpu_features

LEAST = 4  # a chunk of 64 weights takes four vectors of 512 bits
SCRIPT = Path(__file__).with_name("wide_registers.py")


@pytest.mark.skipif(not get_host_cpu_features().get("avx2"), reason="no x86 with AVX2")
def test_wide_registers(benchmark: Any, tmp_path: Path) -> None:
    """Timed is a new process that compiles all of them into an empty cache."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def compiled() -> str:
        run = subprocess.run(
            [sys.executable, SCRIPT], env=environment, check=True, capture_output=True, text=True
        )
        return run.stdout

    counts = json.loads(benchmark.pedantic(compiled, rounds=1))
    benchmark.extra_info.update(operation="wide registers", counts=counts)
    assert len(counts) == 5
    for kernel, steps in counts.items():
        for step, count in steps.items():
            assert count >= LEAST, f"{kernel}: {step} {count} times in a ymm or zmm register"

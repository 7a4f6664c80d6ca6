"""What was measured on and with: the machine and the versions."""

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cases import CORES
from contenders import CONTENDERS

MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
BESIDE = ("numba", "llvmlite", "pytest", "pytest-benchmark")


def machine() -> dict[str, str]:
    """Processor, cores, caches, memory and system; no host name."""
    return {
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "architecture": platform.machine(),
        "vector registers": _vectors(),
        "usable cores": str(CORES),
        "caches": ", ".join(_caches()) or "unknown",
        "memory": _memory(),
        "system": platform.platform(),
        "malloc": " ".join(f"{name}={os.environ.get(name, 'default')}" for name in MALLOC),
    }


def versions() -> dict[str, str]:
    """Of Python and every package that took part."""
    found = {"Python": platform.python_version()}
    packages = [package for one in CONTENDERS for package in (one.package, *one.needs)]
    for package in dict.fromkeys([*packages, *BESIDE]):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _first(path: str, key: str) -> str:
    with suppress(OSError):
        for line in Path(path).read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def _vectors() -> str:
    flags = _first("/proc/cpuinfo", "flags").split()
    return ", ".join(
        flag
        for flag in ("avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512vbmi")
        if flag in flags
    )


def _caches() -> list[str]:
    caches = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with suppress(OSError):
            level, kind, size = (
                (folder / name).read_text().strip() for name in ("level", "type", "size")
            )
            caches.append(f"L{level} {kind.lower()} {size}")
    return caches


def _memory() -> str:
    total = _first("/proc/meminfo", "MemTotal").removesuffix(" kB")
    return f"{int(total) / 2**20:.1f} GiB" if total else "unknown"

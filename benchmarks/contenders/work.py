"""What a contender is, and what it does to one array."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

SIZES = (64, 256, 768, 2048, 4096, 8192)


@dataclass(frozen=True)
class Work:
    """What a contender does to one array, as calls without arguments.

    calls: by the name of the operation; "compare" and "quantize-and-compare" return the energy of
    the array, the energy of the error (each a row or in all) and the largest error. restored:
    what "dequantize" restores, as float32 of the array's shape. nbytes: what is stored, in bytes.
    """

    calls: dict[str, Callable[[], Any]]
    restored: Callable[[], Any]
    nbytes: int


@dataclass(frozen=True, eq=False)
class Contender:
    """One way to quantize.

    module: its file here, whose prepare(x, bits, threads, **options) returns the Work.
    package: whose it is; `needs` must be installed beside it. sqnr_db: what its format
    reaches on normal weights, by width, which are the widths that it has. zero: "symmetric", or
    what is stored of an offset. group: weights to a scale. fused: compares from the codes, of
    which nothing is restored. parallel: has threads. reuses: writes into arrays that it is given.
    """

    name: str
    module: str
    package: str
    sqnr_db: dict[int, float]
    operations: tuple[str, ...] = ("quantize", "dequantize")
    zero: str = "minimum"
    group: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = SIZES
    fused: bool = False
    parallel: bool = True
    reuses: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    note: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is this project."""
        return self.module == "arrowquant"

    def prepare(self, x: Any, bits: int, threads: int) -> Work:
        """The work on x, float32 (rows, columns), already quantized once."""
        module = import_module(f".{self.module}", __package__)
        work: Work = module.prepare(x, bits, threads, **self.options)
        return work

    def moves(self, operation: str, x: Any, nbytes: int) -> int:
        """The bytes that the operation must read and write."""
        if operation == "quantize-and-compare":
            return int(x.nbytes)
        if operation == "compare" and not self.fused:
            return int(2 * x.nbytes)
        return int(x.nbytes + nbytes)

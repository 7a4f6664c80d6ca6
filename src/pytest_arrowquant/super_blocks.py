"""Scales and minima that are themselves quantized: a few bits a group, two steps a super-block."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import ml_dtypes
import numpy as np

from .arrays import Array
from .decoding import Affine, Take
from .errors import SchemeError
from .kernels import super_blocks, super_search
from .scheme import Layout, Scheme

CODE_WIDTHS = (4, 6, 8)


@dataclass(frozen=True, slots=True)
class SuperBlocks:
    """How the scales and middles of groups are stored.

    scale_bits: bits of each scale code and of each middle code, 4, 6 or 8. groups: the most
    groups of a super-block, which adds 48 bits. Raises SchemeError for anything else.
    """

    scale_bits: int
    groups: int

    def __post_init__(self) -> None:
        if type(self.scale_bits) is not int or self.scale_bits not in CODE_WIDTHS:
            raise SchemeError(f"scale_bits={self.scale_bits!r} is not one of 4, 6, 8")
        if type(self.groups) is not int or self.groups < 1:
            raise SchemeError(f"groups={self.groups!r} is not a positive whole number")

    def starts(self, layout: Layout) -> Array:
        """Where each super-block starts among the groups, counted row by row, and their end.

        Rows of more groups than fit are cut into super-blocks as equal as can be; shorter rows
        share one, as many whole rows as fit.
        """
        groups, total = layout.groups, layout.rows * layout.groups
        if not total:
            return np.zeros(1, np.int64)
        if groups > self.groups:
            a_row = -(-groups // self.groups)
            cuts = np.arange(a_row) * groups // a_row
            within = (np.arange(layout.rows)[:, None] * groups + cuts).reshape(-1)
        else:
            within = np.arange(0, total, self.groups // groups * groups)
        return np.append(within, total)


@dataclass(frozen=True, slots=True, eq=False)
class SuperBlockAffine:
    """restored = code * scale + minimum, both read from codes as kernels/super_blocks.py says.

    scale_codes, middle_codes: uint8, packed low bits first without gaps, a code a group.
    steps: bfloat16 (super-blocks, 2), of scales and of middles. offsets: int16, of middle codes.
    """

    blocks: SuperBlocks
    scale_codes: Array
    middle_codes: Array
    steps: Array
    offsets: Array

    @classmethod
    def search(
        cls, blocks: SuperBlocks, rows: Array, scheme: Scheme, layout: Layout, shrinks: Array
    ) -> Self:
        """Parameters of little squared error for finite float32 rows."""
        starts, bits = blocks.starts(layout), blocks.scale_bits
        codes = np.empty((2, starts[-1]), np.uint8)
        packed = np.empty((2, -(-codes.shape[1] * bits // 8)), np.uint8)
        steps = np.empty((starts.size - 1, 2), np.float32)
        offsets = np.empty(starts.size - 1, np.int16)
        if codes.size:
            super_search.search(
                rows, layout.group_size, starts, scheme.bits, bits, shrinks, *codes, steps, offsets
            )
        for unpacked, filled in zip(codes, packed, strict=True):
            super_blocks.pack(unpacked, bits, filled)
        return cls(blocks, packed[0], packed[1], steps.astype(ml_dtypes.bfloat16), offsets)

    @classmethod
    def made_of(
        cls, options: Mapping[str, Any], scheme: Scheme, layout: Layout, take: Take
    ) -> Self:
        """See Decoding."""
        if scheme.zero != "float":
            raise SchemeError(f"zero={scheme.zero!r} in super-blocks; expected 'float'")
        blocks = SuperBlocks(options["scale_bits"], options["groups"])
        starts = blocks.starts(layout)
        packed = (-(-int(starts[-1]) * blocks.scale_bits // 8),)
        return cls(
            blocks,
            take("scale_codes", packed, np.uint8),
            take("middle_codes", packed, np.uint8),
            take("steps", (starts.size - 1, 2), ml_dtypes.bfloat16),
            take("offsets", (starts.size - 1,), np.int16),
        )

    @property
    def options(self) -> dict[str, Any]:
        """scale_bits and groups."""
        return asdict(self.blocks)

    @property
    def nbytes(self) -> int:
        """Bytes of all codes, steps and offsets."""
        parts = (self.scale_codes, self.middle_codes, self.steps, self.offsets)
        return sum(part.nbytes for part in parts)

    def expanded(self, layout: Layout, bits: int) -> Affine:
        """The float32 scale and minimum of every group."""
        affine = Affine.empty(Scheme(bits, "float"), (layout.rows, layout.groups))
        super_blocks.expand(
            self.scale_codes,
            self.middle_codes,
            self.blocks.scale_bits,
            self.steps.astype(np.float32),
            self.offsets,
            self.blocks.starts(layout),
            bits,
            affine.scale.reshape(-1),
            affine.minimum.reshape(-1),
        )
        return affine

    def encode(self, rows: Array, layout: Layout, bits: int, codes: Array) -> None:
        """See Decoding."""
        self.expanded(layout, bits).encode(rows, layout, bits, codes)

    def dequantize(
        self, codes: Array, layout: Layout, bits: int, out: Array, threads: int = 1
    ) -> None:
        """See Decoding."""
        self.expanded(layout, bits).dequantize(codes, layout, bits, out, threads)

    def compare(
        self,
        rows: Array,
        codes: Array,
        layout: Layout,
        bits: int,
        sums: Array,
        threads: int = 1,
    ) -> None:
        """See Decoding."""
        self.expanded(layout, bits).compare(rows, codes, layout, bits, sums, threads)

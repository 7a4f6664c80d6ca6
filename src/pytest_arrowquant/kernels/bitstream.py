"""From words of packed codes to one code a byte, as the common formats lay them.

A stream is read low bits first: value i of a line sits at bits [i * b, (i + 1) * b) of its
little-endian words. GPTQ runs its streams down the rows, most others along them.
"""

import numpy as np

from ._jit import kernel

LINE = 16  # uint32 in a cache line


@kernel()
def _stream(words, bits, out):
    """One line of uint32 words as codes of any width to 8."""
    mask = np.uint64((1 << bits) - 1)
    for i in range(out.size):
        bit = i * bits
        word, shift = bit // 32, np.uint64(bit % 32)
        value = np.uint64(words[word])
        if bit % 32 + bits > 32:
            value |= np.uint64(np.uint64(words[word + 1]) << np.uint64(32))
        out[i] = np.uint8(np.uint64(value >> shift) & mask)


@kernel()
def _bytes(packed, bits, out):
    """One line of bytes as codes; `bits` is constant, so that the loop vectorises."""
    per_byte = 8 // bits
    mask = np.uint8((1 << bits) - 1)
    whole = out.size // per_byte
    if bits == 8:
        for k in range(whole):
            out[k] = packed[k]
    elif bits == 4:
        for k in range(whole):
            out[2 * k] = np.uint8(packed[k] & mask)
            out[2 * k + 1] = np.uint8(packed[k] >> np.uint8(4))
    else:
        for k in range(whole):
            out[4 * k] = np.uint8(packed[k] & mask)
            out[4 * k + 1] = np.uint8(np.uint8(packed[k] >> np.uint8(2)) & mask)
            out[4 * k + 2] = np.uint8(np.uint8(packed[k] >> np.uint8(4)) & mask)
            out[4 * k + 3] = np.uint8(packed[k] >> np.uint8(6))
    for i in range(whole * per_byte, out.size):
        shift = np.uint8((i - whole * per_byte) * bits)
        out[i] = np.uint8(np.uint8(packed[whole] >> shift) & mask)


@kernel()
def unpack_rows(words, bits, out):
    """words: uint32 (rows, words a row), streams along rows; out: uint8 (rows, columns)."""
    for r in range(out.shape[0]):
        if bits == 4:
            _bytes(words[r].view(np.uint8), 4, out[r])
        elif bits == 2:
            _bytes(words[r].view(np.uint8), 2, out[r])
        elif bits == 8:
            _bytes(words[r].view(np.uint8), 8, out[r])
        else:
            _stream(words[r], bits, out[r])


@kernel()
def unpack_high_first(packed, out):
    """packed: bytes of two 4-bit codes, the first in the high bits; out: uint8, twice as long."""
    for k in range(packed.size):
        out[2 * k] = np.uint8(packed[k] >> np.uint8(4))
        out[2 * k + 1] = np.uint8(packed[k] & np.uint8(15))


@kernel()
def _transpose(words, out):
    """out[c] = words[:, c], in tiles of a cache line each way."""
    for k in range(0, out.shape[1], LINE):
        for c in range(0, out.shape[0], LINE):
            for i in range(c, min(c + LINE, out.shape[0])):
                for j in range(k, min(k + LINE, out.shape[1])):
                    out[i, j] = words[j, i]


@kernel()
def unpack_down(words, bits, out):
    """words: uint32 (words a column, columns), streams down; out: uint8 (columns, codes)."""
    lines = np.empty((words.shape[1], words.shape[0]), np.uint32)
    _transpose(words, lines)
    unpack_rows(lines, bits, out)


@kernel()
def unpack_across(words, shifts, out):
    """words: uint32 (columns, lines), each the 4-bit codes of eight output rows of one column.

    shifts: where row j of eight lies in a word. out: uint8 (8 * lines, columns).
    """
    lines = np.empty((words.shape[1], words.shape[0]), np.uint32)
    _transpose(words, lines)
    for c in range(lines.shape[0]):
        for j in range(8):
            row, shift = out[8 * c + j], np.uint32(shifts[j])
            for i in range(row.size):
                row[i] = np.uint8(np.uint32(lines[c, i] >> shift) & np.uint32(15))

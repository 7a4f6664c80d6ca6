"""Work on blocks of rows, by several threads where there is enough of it.

Kernels release the interpreter's lock, and a row's result depends on no other: the bits are those
of one thread.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

from .errors import TensorError

T = TypeVar("T")
LEAST = 1 << 20  # weights that are worth a thread: to hand them over takes as long as some 100,000


def over_rows(work: Callable[[slice], T], rows: int, columns: int, threads: int) -> list[T]:
    """What `work` returns for each block of consecutive rows, in order; one block a thread.

    Raises TensorError for less than one thread, and whatever `work` raises.
    """
    if type(threads) is not int or threads < 1:
        raise TensorError(f"threads={threads!r}; expected a whole number from 1 on")
    if threads == 1:
        return [work(slice(0, rows))]
    blocks = max(min(threads, rows, rows * columns // LEAST), 1)
    bounds = [rows * i // blocks for i in range(blocks + 1)]
    first, *others = (slice(*ends) for ends in pairwise(bounds))
    waiting = [_pool(blocks - 1).submit(work, at) for at in others]
    return [work(first), *(future.result() for future in waiting)]


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay, as starting one takes as long as a million weights."""
    return ThreadPoolExecutor(threads, "arrowquant")

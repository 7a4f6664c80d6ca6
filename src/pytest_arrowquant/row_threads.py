"""Work on blocks of rows, by several threads where there is enough of it.

Kernels release the interpreter's lock, and a row's result depends on no other: the bits are those
of one thread.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from typing import TypeVar

from .cores import become_one_of_many, is_one_of_many
from .errors import TensorError

T = TypeVar("T")
LEAST = 1 << 20  # weights that are worth a thread: to hand them over takes as long as some 100,000


def over_rows(work: Callable[[slice], T], rows: int, columns: int, threads: int) -> list[T]:
    """What `work` returns for each block of consecutive rows, in order; one block a thread.

    On a thread that is one of many, all by that one. Raises TensorError for less than one thread,
    and whatever `work` raises, when no thread is at work any more.
    """
    if type(threads) is not int or threads < 1:
        raise TensorError(f"threads={threads!r}; expected a whole number from 1 on")
    if threads == 1 or is_one_of_many():
        return [work(slice(0, rows))]
    blocks = max(min(threads, rows, rows * columns // LEAST), 1)
    bounds = [rows * i // blocks for i in range(blocks + 1)]
    first, *others = (slice(*ends) for ends in pairwise(bounds))
    waiting = [_pool().submit(work, at) for at in others]
    try:
        return [work(first), *(future.result() for future in waiting)]
    finally:
        wait(waiting)


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that stay, begun when needed: that takes as long as a million weights."""
    return ThreadPoolExecutor(os.cpu_count(), "arrowquant", become_one_of_many)


if hasattr(os, "register_at_fork"):  # a child has the pool, but none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)

"""The cores that this process may use, and work spread over them."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

MOST = 8  # layers at a time: each holds its weight, its inputs and a Hessian

_thread = threading.local()


def cores() -> int:
    """How many cores are ours: of those that the process may run on, its share as a worker.

    One on a thread that is one of many, as the others have theirs.
    """
    if is_one_of_many():
        return 1
    known = hasattr(os, "sched_getaffinity")  # not on every system
    usable = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(
    work: Callable[[Item], Result], items: Sequence[Item], cost: Callable[[Item], float]
) -> list[Result]:
    """work(item) of each item, in their order; on a thread a core, MOST at most, costliest first.

    BLAS has one thread meanwhile: more would wait for each other, and the last bits of its sums
    depend on how many there are.
    """
    dearest = sorted(range(len(items)), key=lambda index: -cost(items[index]))
    pool = ThreadPoolExecutor(min(cores(), MOST), initializer=become_one_of_many)
    with threadpool_limits(1, "blas"):
        try:
            begun = {index: pool.submit(work, items[index]) for index in dearest}
            return [begun[index].result() for index in range(len(items))]
        finally:
            pool.shutdown(cancel_futures=True)


def become_one_of_many() -> None:
    """Say that this thread works beside others, for good."""
    _thread.is_one_of_many = True


def is_one_of_many() -> bool:
    """Whether this thread works beside others that have the other cores."""
    return getattr(_thread, "is_one_of_many", False)

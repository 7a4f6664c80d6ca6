"""What is benchmarked: every operation of every contender, width, number of threads and size."""

import os
from dataclasses import dataclass

from contenders import CONTENDERS, SIZES, Contender


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


CORES = usable_cores()
THREADS = (1,) if CORES == 1 else (1, CORES)


@dataclass(frozen=True)
class Subject:
    """A contender at a width on so many threads, with a square weight of normal values."""

    contender: Contender
    bits: int
    threads: int
    size: int

    def __str__(self) -> str:
        threads = "1thread" if self.threads == 1 else "allthreads"
        side = f"{self.size}x{self.size}"
        return f"{self.contender.name}-int{self.bits}-{threads}-{side}"


def subjects() -> list[Subject]:
    """All of them, small weights first; what has no threads is there once."""
    return [
        Subject(contender, bits, threads, size)
        for size in SIZES
        for contender in CONTENDERS
        for bits in contender.sqnr_db
        for threads in (THREADS if contender.parallel else (1,))
        if size in contender.sizes
    ]


def cases() -> list[tuple[Subject, str]]:
    """Subjects and operations, those of a subject one after the other."""
    return [(subject, name) for subject in subjects() for name in subject.contender.operations]

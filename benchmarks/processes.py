"""A command in a process of its own: how long it and its children took, and their memory."""

import ctypes
import gc
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.005  # seconds between two looks at the memory


@dataclass(frozen=True, slots=True)
class Run:
    """What a command came to.

    wall_s, cpu_s: seconds from start to end, and of processor time. anonymous_mib: the most memory
    that all its processes had of their own at one time (RssAnon), by looks every 5 ms; mapped
    files are not in it. resident_mib: the most that any one had, mapped files included (VmHWM).
    """

    wall_s: float
    cpu_s: float
    anonymous_mib: float
    resident_mib: float
    output: str


def run(command: Sequence[str], folder: Path) -> Run:
    """Run a command in a folder, with malloc as it is by default.

    RuntimeError with its output where it fails.
    """
    usual = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    before, start = _cpu(), time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=usual,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    peaks = {"RssAnon": 0.0, "VmHWM": 0.0}
    watcher = threading.Thread(target=_watch, args=(process, peaks))
    watcher.start()
    output, _ = process.communicate()
    wall = time.perf_counter() - start
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{output}")
    return Run(wall, _cpu() - before, peaks["RssAnon"], peaks["VmHWM"], output)


def accuracy_run(*options: str) -> list[str]:
    """The command of an accuracy run that leaves nothing but its reports in its folder."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return [*pytest, "--arrowquant-accuracy", *options]


def _cpu() -> float:
    """Processor seconds of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _watch(process: subprocess.Popen[str], peaks: dict[str, float]) -> None:
    """Raise the peaks, in MiB, to what the processes have, until the first of them has ended."""
    while process.poll() is None:
        status = [mib_in(f"/proc/{pid}/status") for pid in _family(process.pid)]
        anonymous = sum(each.get("RssAnon", 0.0) for each in status)
        peaks["RssAnon"] = max(peaks["RssAnon"], anonymous)
        peaks["VmHWM"] = max([peaks["VmHWM"], *(each.get("VmHWM", 0.0) for each in status)])
        time.sleep(INTERVAL)


def _family(pid: int) -> Iterator[int]:
    """A process and all that descend from it, but those that run no other program yet.

    They have just been forked: what they have is their parent's.
    """
    yield pid
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if Path(f"/proc/{child}/cmdline").read_bytes() != command:
                yield from _family(int(child))
    except OSError:
        return  # one of them has just ended


def grown(call: Callable[[], object]) -> float:
    """By how many MiB this process has more of its own in a call, at most, than before it."""
    give_back()
    before = mib_in()["RssAnon"]
    peak, ended = [before], threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL):
            peak.append(max(peak.pop(), mib_in()["RssAnon"]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    ended.set()
    watcher.join()
    return peak[0] - before


def give_back() -> None:
    """Have malloc return what it keeps to use again, which would hide what is needed."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def mib_in(file: str = "/proc/self/status") -> dict[str, float]:
    """What Linux counts there of memory, in MiB by name; nothing of a process that has ended."""
    try:
        text = Path(file).read_text()
    except OSError:
        return {}
    return {name: int(kib) / 1024 for name, kib in re.findall(r"(\w+):\s+(\d+) kB", text)}

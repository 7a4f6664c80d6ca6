"""One thread or many: the same bits, and the same errors."""

import os
import subprocess
import sys
from threading import Barrier
from time import sleep
from typing import Any

import numba
import numpy as np
import pytest

from pytest_arrowquant import QuantizedTensor, R2q, Scheme, quantize, quantize_and_compare
from pytest_arrowquant.errors import TensorError
from pytest_arrowquant.row_threads import LEAST, over_rows
from reference import assert_same_bits

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="millions of weights take minutes in plain Python"
)
SCHEMES = [
    Scheme(2, "none", 64),
    Scheme(4, "integer", 64),
    Scheme(8, "float", 32),
    Scheme(4, "none", "channel"),
    Scheme(4, "none", "tensor"),
    Scheme(2, "none", "tensor"),
    Scheme(8, "float", "tensor"),
]


def gaussian(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def parameters(q: QuantizedTensor) -> list[Any]:
    return [getattr(q.decoding, name) for name in ("scale", "zero_point", "minimum")]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("shape", [(2049, 1024), (5, 500_001)], ids=str)
def test_threads_change_no_bit(scheme: Scheme, shape: tuple[int, int]) -> None:
    x = gaussian(*shape)
    one = quantize(x, scheme)
    restored, sums, both = one.dequantize(), one.compare(x), quantize_and_compare(x, scheme)
    for threads in (2, 64):
        many = quantize(x, scheme, threads=threads)
        assert_same_bits(many.codes, one.codes, threads)
        for got, want in zip(parameters(many), parameters(one), strict=True):
            assert_same_bits(got, want, threads)
        assert_same_bits(many.dequantize(threads=threads), restored, threads)
        assert_same_bits(many.compare(x, threads), sums, threads)
        assert_same_bits(quantize_and_compare(x, scheme, threads=threads), both, threads)


def test_threads_share_the_rows_of_binary_terms() -> None:
    x = gaussian(2049, 1024)
    q = R2q().quantize(x, 2)
    assert_same_bits(q.dequantize(threads=2), q.dequantize(), "values")
    assert_same_bits(q.compare(x, 2), q.compare(x), "sums")


@pytest.mark.parametrize("group_size", [64, "tensor"])
@pytest.mark.parametrize("call", [quantize, quantize_and_compare])
def test_nan_is_named_whichever_thread_finds_it(call: Any, group_size: Any) -> None:
    x = gaussian(2049, 1024)
    x[2048, 7] = np.nan
    with pytest.raises(TensorError, match=r"^weight has nan at index \(2048, 7\); every value"):
        call(x, Scheme(4, group_size=group_size), threads=2)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
@pytest.mark.parametrize("group_size", [4, "tensor"])
def test_less_than_a_thread_is_refused(threads: Any, group_size: Any) -> None:
    x, scheme = gaussian(2, 8), Scheme(4, group_size=group_size)
    message = f"^threads={threads}; expected a whole number from 1 on$"
    for call in (
        lambda: quantize(x, scheme, threads=threads),
        lambda: quantize(x, scheme).dequantize(threads=threads),
        lambda: quantize(x, scheme).compare(x, threads),
        lambda: quantize_and_compare(x, scheme, threads=threads),
    ):
        with pytest.raises(TensorError, match=message):
            call()


@pytest.mark.parametrize(
    ("rows", "columns", "threads", "blocks"),
    [
        (768, 768, 8, 1),  # too few weights for a second
        (2 * 768, 768, 8, 1),
        (2, LEAST, 8, 2),
        (1, 8 * LEAST, 8, 1),  # a row is not cut
        (10, LEAST, 3, 3),
        (0, 5, 2, 1),
        (5, 0, 2, 1),
    ],
)
def test_every_row_once_and_in_order(rows: int, columns: int, threads: int, blocks: int) -> None:
    got = over_rows(lambda at: range(at.start, at.stop), rows, columns, threads)
    assert len(got) == blocks
    assert [row for each in got for row in each] == list(range(rows))  # type: ignore[attr-defined]


def test_threads_work_at_the_same_time() -> None:
    """Each waits for the other: alone, a block would wait in vain."""
    meeting = Barrier(2, timeout=60)
    assert sorted(over_rows(lambda at: meeting.wait(), 2, LEAST, 2)) == [0, 1]  # type: ignore[type-var]


def test_an_error_of_another_thread_is_raised() -> None:
    def fail_at_the_end(at: slice) -> None:
        if at.stop == 2:
            raise OSError("of the second row")

    with pytest.raises(OSError, match="of the second row"):
        over_rows(fail_at_the_end, 2, LEAST, 2)


def test_when_one_fails_none_is_at_work_any_more() -> None:
    done = []

    def work(at: slice) -> None:
        if at.start == 0:
            raise OSError("of the first row")
        sleep(0.2)
        done.append(at.start)

    with pytest.raises(OSError, match="of the first row"):
        over_rows(work, 2, LEAST, 2)
    assert done == [1]


def test_a_thread_of_many_shares_with_none() -> None:
    """It would wait for the pool that it is of."""

    def inner(at: slice) -> tuple[int, int]:
        return at.start, at.stop

    def outer(at: slice) -> list[tuple[int, int]]:
        return over_rows(inner, 4, LEAST, 4)

    first, *others = over_rows(outer, 16, LEAST, 16)
    assert first == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert others == [[(0, 4)]] * 15


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    program = (
        "import os, signal, numpy as np\n"
        "from pytest_arrowquant import Scheme, quantize\n"
        "x = np.ones((4096, 1024), np.float32)\n"
        "quantize(x, Scheme(4), threads=2)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    signal.alarm(60)\n"
        "    quantize(x, Scheme(4), threads=2)\n"
        "    os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert run(program) == "7"


def test_one_thread_starts_none() -> None:
    program = (
        "import sys, threading, numpy as np\n"
        "from pytest_arrowquant import Scheme, quantize\n"
        "quantize(np.ones((4096, 1024), np.float32), Scheme(4)).dequantize()\n"
        "quantize(np.ones((768, 768), np.float32), Scheme(4), threads=8).dequantize(threads=8)\n"
        "print(threading.active_count())"
    )
    assert run(program) == "1"


def run(program: str) -> str:
    """What it prints, in a new process."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

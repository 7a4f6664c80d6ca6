"""Work spread over cores: in order, with one BLAS thread, and as many threads as are ours."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from pytest_arrowquant import cores
from pytest_arrowquant.quantizers import Hqq, Mse, Rtn, hqq, mse, rtn


def blas_threads() -> set[int]:
    return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}


def test_results_come_in_the_order_of_the_items():
    assert cores.spread(lambda item: item * item, range(20), lambda item: item) == [
        item * item for item in range(20)
    ]


def test_the_costliest_is_begun_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores, "cores", lambda: 1)
    begun: list[int] = []
    cores.spread(begun.append, [3, 1, 2], float)
    assert begun == [3, 2, 1]


def test_as_many_work_at_a_time_as_there_are_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores, "cores", lambda: 3)
    together = threading.Barrier(3, timeout=60)  # broken unless three meet
    assert cores.spread(lambda _: together.wait() in range(3), range(6), float) == [True] * 6


def test_blas_has_one_thread_meanwhile_and_its_own_again_after():
    before = blas_threads()
    assert before
    assert cores.spread(lambda _: blas_threads(), range(2), float) == [{1}, {1}]
    assert blas_threads() == before


def test_what_the_work_raises_is_raised_and_the_rest_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores, "cores", lambda: 1)
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        raise ValueError(f"item {item}")

    before = blas_threads()
    with pytest.raises(ValueError, match="item 0"):
        cores.spread(work, range(1000), lambda item: -item)
    assert len(begun) < 1000
    assert blas_threads() == before


@pytest.mark.parametrize(("workers", "ours"), [("1", 6), ("2", 3), ("4", 1), ("16", 1)])
def test_a_worker_has_its_share(workers: str, ours: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", workers)
    assert cores.cores() == ours


def test_a_thread_has_one_where_others_have_theirs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    assert cores.spread(lambda _: cores.cores(), range(3), float) == [1, 1, 1]
    assert cores.cores() == 4


def test_no_more_than_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores, "cores", lambda: 64)
    names = cores.spread(lambda _: threading.current_thread().name, range(200), float)
    assert len(set(names)) <= cores.MOST


@pytest.mark.parametrize(
    ("quantizer", "shape"),
    [
        (Hqq(), (301, 512)),
        (Mse(), (301, 512)),
        (Mse(zero="none"), (301, 512)),
        (Rtn(), (4099, 1024)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_do_not_depend_on_the_cores(
    quantizer, shape, bits: int, monkeypatch: pytest.MonkeyPatch
):
    weight = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    found = []
    for count in (1, 4):
        for module in (hqq, mse, rtn):
            monkeypatch.setattr(module, "cores", lambda count=count: count)
        found.append(quantizer.quantize(weight, bits))
    np.testing.assert_array_equal(found[0].codes, found[1].codes)
    np.testing.assert_array_equal(found[0].dequantize(), found[1].dequantize())

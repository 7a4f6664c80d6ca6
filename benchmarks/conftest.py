"""What pytest-benchmark's JSON has beside the timings: the machine, versions, what was left out."""

from typing import Any

import pytest
from machine import machine, versions

LEFT_OUT = pytest.StashKey[list[dict[str, Any]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    report = yield
    if report.skipped:
        left_out = {"name": item.name, "why": report.longrepr[2].removeprefix("Skipped: ")}
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if "subject" in parameters:
            subject = parameters["subject"]
            left_out |= {
                "contender": subject.contender.name,
                "operation": parameters["operation"],
                "bits": subject.bits,
                "threads": subject.threads,
                "size": subject.size,
            }
        item.config.stash[LEFT_OUT].append(left_out)
    return report


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info.clear()  # of what it had, the host's name is no one's business
    machine_info.update(machine(), versions=versions())


def pytest_benchmark_update_json(config: Any, benchmarks: Any, output_json: dict[str, Any]) -> None:
    output_json["left_out"] = config.stash[LEFT_OUT]

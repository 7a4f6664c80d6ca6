"""One run on the controller: collects what reports carry, writes the files, prints the summary."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from .options import Settings


class Run:
    """The records and errors of all accuracy tests, whichever process ran them."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.records: list[dict[str, Any]] = []
        self.errors: list[dict[str, str]] = []
        self.tests: set[str] = set()
        self.failed: set[str] = set()
        self.crashed = False
        self.written: list[Path] = []
        self.problem = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take over the records of a report, and what else went wrong."""
        records = getattr(report, "arrowquant", None)
        crashed = report.when not in ("setup", "call", "teardown")
        if records is None and not crashed:
            return
        self.crashed = self.crashed or crashed
        self.tests.add(report.nodeid)
        attempt = getattr(report, "rerun", 0)
        self.records += [{**record, "attempt": attempt} for record in records or []]
        if report.failed:
            self.failed.add(report.nodeid)
            self.errors.append(
                {
                    "nodeid": report.nodeid,
                    "when": str(report.when),
                    "message": self._message(report),
                }
            )

    def _message(self, report: pytest.TestReport) -> str:
        """The first line of what went wrong, without the path of this checkout."""
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash else report.longreprtext.strip()
        first = next(iter(text.splitlines()), "")
        return first.replace(f"{self.config.rootpath}/", "")

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, None, None]:
        """Write the reports, when every plugin has had its say on the exit status."""
        yield
        self._settle()
        if self.settings.report is None or self.config.getoption("collectonly"):
            return
        from .report import write_reports

        try:
            self.written = write_reports(
                self.settings.report,
                self.records,
                self.errors,
                self._summary(session),
                self.settings,
            )
        except OSError as error:
            self.problem = f"the reports could not be written: {error}"
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _settle(self) -> None:
        """Put records in order, and drop the failures that a record explains."""
        self.records.sort(key=lambda record: (record["nodeid"], record["attempt"], record["index"]))
        explained = {record["nodeid"] for record in self.records if not record["passed"]}
        self.errors = sorted(
            (
                error
                for error in self.errors
                if not (error["when"] == "call" and error["nodeid"] in explained)
            ),
            key=lambda error: (error["nodeid"], error["when"]),
        )

    def _summary(self, session: pytest.Session) -> dict[str, Any]:
        finished = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        stopped = bool(session.shouldstop or session.shouldfail)
        passed = sum(record["passed"] for record in self.records)
        return {
            "records": len(self.records),
            "passed": passed,
            "failed": len(self.records) - passed,
            "tests": len(self.tests),
            "tests_failed": len(self.failed),
            "complete": finished and not stopped and not self.crashed,
            "exit_status": int(session.exitstatus),
        }

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """A line a record and the worst layers; nothing where no accuracy test ran."""
        if not (self.records or self.written or self.problem):
            return
        from .report.text import summary_lines

        terminalreporter.section("accuracy of quantization")
        for line in summary_lines(self.records):
            terminalreporter.write_line(line)
        if self.problem:
            terminalreporter.write_line(self.problem, red=True)
        if self.written:
            folder = self._shown(self.written[0].parent)
            names = ", ".join(path.name for path in self.written if path.suffix != ".svg")
            terminalreporter.write_line(f"reports in {folder}: {names}")

    def _shown(self, folder: Path) -> str:
        start = self.config.invocation_params.dir
        return str(folder.relative_to(start)) if folder.is_relative_to(start) else str(folder)

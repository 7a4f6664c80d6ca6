"""One run on the controller: collects what reports carry, writes the files, prints the summary."""

import json
import re
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from .errors import ArrowQuantError
from .fixtures import AUDIT
from .options import Settings

FOLDERS = r"(?<![\w:/.])(?:[A-Za-z]:[\\/]|/)(?:[^\s/\\'\"]+[\\/])+"  # of absolute paths

FAILED_SUBTESTS = r"contains \d+ failed subtest"  # each has had a report of its own


def message_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The line that says what went wrong, with the name alone of a file by its absolute path."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash else report.longreprtext).strip().splitlines() or [""]
    said = [line[1:].strip() for line in lines if line.startswith("E ")]
    return re.sub(FOLDERS, "", lines[0] if crash else (said or lines[-1:])[0])


class Run:
    """The records and errors of all accuracy tests, whichever process ran them."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.texts: list[tuple[int, str]] = []
        self.records: list[dict[str, Any]] = []
        self.invariants: list[dict[str, Any]] = []
        self.errors: list[dict[str, str]] = []
        self.tests: set[str] = set()
        self.failed: set[str] = set()
        self.broken = False
        self.written: list[Path] = []
        self.problem = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take over the records of a report, and what else went wrong."""
        carried = getattr(report, "arrowquant", None)
        crashed = report.when not in ("setup", "call", "teardown")
        if carried is None and not crashed:
            return
        carried = carried or {"records": [], "invariants": [], "recorded": False}
        self.broken = self.broken or crashed
        self.tests.add(report.nodeid)
        attempt = getattr(report, "rerun", 0)
        self.texts += [(attempt, text) for text in carried["records"]]
        carried["records"] = []  # the terminal keeps every report
        self.invariants += [{**entry, "attempt": attempt} for entry in carried["invariants"]]
        if report.failed:
            self.failed.add(report.nodeid)
            if not carried["recorded"] and not re.match(FAILED_SUBTESTS, message_of(report)):
                self._add_error(report, str(report.when))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """What cannot be collected may hold accuracy tests, so the run is not complete."""
        if report.failed:
            self.broken = True
            self._add_error(report, "collect")

    def _add_error(self, report: pytest.TestReport | pytest.CollectReport, when: str) -> None:
        error = {"nodeid": report.nodeid, "when": when, "message": message_of(report)}
        if error not in self.errors:  # every worker tells of the same file
            self.errors.append(error)

    def pytest_keyboard_interrupt(self) -> None:
        """Ctrl-C, or a test that calls pytest.exit()."""
        self.broken = True

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        """Write the reports, when every plugin has had its say on the exit status."""
        try:
            yield
        finally:
            self._settle()
            if self.settings.report is not None and not self.config.getoption("collectonly"):
                self._write(self.settings.report, session)

    def _write(self, folder: Path, session: pytest.Session) -> None:
        """Write the reports; a run whose reports are lost does not end well."""
        from .report import write_reports

        summary = self._summary(session)
        try:
            self.written = write_reports(
                folder,
                self.records,
                self.errors,
                summary,
                self.settings,
                checkpoint_notes=self._notes(),
                invariants=self.invariants,
            )
        except (OSError, ArrowQuantError) as error:  # or the checkpoint is gone
            self.problem = f"the reports could not be written: {error}"
            if not self.config.pluginmanager.hasplugin("terminalreporter"):
                print(self.problem, file=sys.stderr)
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _notes(self) -> tuple[str, ...]:
        """What is worth knowing of an audited checkpoint as a whole."""
        audit = self.config.stash.get(AUDIT, None)
        return audit.notes if audit else ()

    def _settle(self) -> None:
        """Put records and errors in order, whatever process they came from."""
        self.records = [{**json.loads(text), "attempt": attempt} for attempt, text in self.texts]
        self.texts = []
        self.records.sort(key=lambda record: (record["nodeid"], record["attempt"], record["index"]))
        self.invariants.sort(key=lambda entry: (entry["nodeid"], entry["attempt"]))
        self.errors.sort(key=lambda error: (error["nodeid"], error["when"]))

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
            "complete": finished and not stopped and not self.broken,
            "exit_status": int(session.exitstatus),
        }

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """A line a record and the worst layers; nothing where no accuracy test ran."""
        if not (self.records or self.invariants or self.written or self.problem):
            return
        from .report.findings_text import invariant_lines, selfcheck_lines
        from .report.text import summary_lines

        terminalreporter.section("accuracy of quantization")
        lines = summary_lines(self.records) if self.records or not self.invariants else []
        for line in lines + invariant_lines(self.invariants) + selfcheck_lines(self.records):
            terminalreporter.write_line(line)
        for note in self._notes():
            terminalreporter.write_line(f"note: {note}")
        if self.errors:
            terminalreporter.write_line(f"{len(self.errors)} errors beside the records", red=True)
        if self.problem:
            terminalreporter.write_line(self.problem, red=True)
        if self.written:
            folder = self._shown(self.written[0].parent)
            names = ", ".join(path.name for path in self.written if path.suffix != ".svg")
            terminalreporter.write_line(f"reports in {folder}: {names}")

    def _shown(self, folder: Path) -> str:
        start = self.config.invocation_params.dir
        return str(folder.relative_to(start)) if folder.is_relative_to(start) else str(folder)

"""The pytest plugin: options and hooks. Imports nothing heavy; most runs never need it."""

import argparse
import json
from collections.abc import Callable, Generator
from numbers import Integral
from typing import TYPE_CHECKING, Any

import pytest

from . import fixtures, hookspecs
from .errors import (
    AccuracyFailure,
    CheckpointError,
    InvariantBroken,
    OptionError,
    QuantizerError,
    TargetError,
)
from .fixtures import ACCURACY, KEYWORDS, RECORDS, SETTINGS
from .options import SETTINGS as OPTIONS
from .options import Setting, settings_of
from .run import Run
from .vocabulary import WIDTHS

if TYPE_CHECKING:
    from .records import AccuracyRecord

FAMILY = {"arrowquant": None, **{f"arrowquant_int{bits}": bits for bits in WIDTHS}}
ATTRIBUTE = "arrowquant"  # of a report; a plain attribute survives the way from a worker
MARK = pytest.StashKey[pytest.Mark]()
SIGNATURE = (
    "(*, bits=None, cosine=None, sqnr_db=None, row_cosine=None, output_cosine=None, "
    "guards=True, judge='weights'): hold what the test checks with the arrowquant fixture to "
)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """The hook for the quantizers of other projects."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options, and a typed ini twin of each setting."""
    group = parser.getgroup("arrowquant", "accuracy of quantization")
    group.addoption(
        "--arrowquant-accuracy",
        action="store_true",
        dest="arrowquant_accuracy",
        help="Run the accuracy tests alone: the built-in suite and every test marked arrowquant; "
        "write the reports.",
    )
    for setting in OPTIONS:
        group.addoption(
            setting.flag,
            dest=setting.ini,
            metavar=setting.metavar,
            type=_argument(setting),
            help=setting.help,
        )
        parser.addini(setting.ini, setting.help, type=setting.ini_type, default=None)
    group.addoption(
        "--arrowquant-original",
        dest="arrowquant_original",
        metavar="PATH",
        help="A checkpoint (a safetensors file, a folder of shards or their index): put the "
        "built-in quantizers on its weights instead of the synthetic models.",
    )
    group.addoption(
        "--arrowquant-quantized",
        dest="arrowquant_quantized",
        metavar="PATH",
        help="A quantized checkpoint: audit it, tensor by tensor, against --arrowquant-original; "
        "without one, for integrity alone.",
    )
    group.addoption(
        "--arrowquant-selfcheck",
        action="store_true",
        dest="arrowquant_selfcheck",
        help="Break every tensor that passed in every known way, and say which faults its targets "
        "would have missed.",
    )
    parser.addini(
        "arrowquant_targets",
        "Targets a width, for the marker and the suite: '4: cosine=0.97, sqnr_db=18'.",
        type="linelist",
    )


def _argument(setting: Setting) -> Callable[[str], Any]:
    """The setting's parser with argparse's kind of error."""

    def parse(text: str) -> Any:
        try:
            return setting.parse(text)
        except OptionError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def pytest_configure(config: pytest.Config) -> None:
    """Markers, settings, fixtures, and on the controller what collects the records."""
    for name, bits in FAMILY.items():
        held = f"the accuracy of INT{bits}." if bits else "the accuracy of its width."
        config.addinivalue_line("markers", f"{name}{SIGNATURE}{held}")
    try:
        settings = settings_of(config)
        config.stash[SETTINGS] = settings
        if settings.quantized is not None:
            from .suite.test_audit import audit_of

            audit_of(config)
        elif settings.accuracy:
            from .suite.quantizers import require_known

            require_known(config)
            if settings.original is not None:
                _require_quantizable(settings.original)
    except (OptionError, CheckpointError, QuantizerError) as error:
        raise pytest.UsageError(str(error)) from None
    if settings.accuracy:
        config.option.benchmark_quiet = True  # its table; the time stands in each record's line
    plugins = config.pluginmanager
    benchmarks = plugins.hasplugin("benchmark") or plugins.hasplugin("pytest_benchmark.plugin")
    plugins.register(fixtures, "arrowquant-fixtures")
    plugins.register(
        fixtures.WithBenchmark() if benchmarks else fixtures.WithoutBenchmark(),
        "arrowquant-benchmark",
    )
    if not hasattr(config, "workerinput"):
        plugins.register(Run(config, settings), "arrowquant-run")


def _require_quantizable(path: Any) -> None:
    """CheckpointError where the file cannot be read or holds nothing to quantize."""
    from .checkpoints import open_checkpoint

    if not open_checkpoint(path).quantizable:
        raise CheckpointError(
            f"checkpoint {path.name} has no floating tensor of two or more dimensions to quantize"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Resolve the marks; with --arrowquant-accuracy add the suite and keep what is marked.

    First, so that -k, -m and --lf select among the suite's tests as among any others.
    """
    if config.stash[SETTINGS].accuracy:
        from .suite import collect

        try:
            suite = collect(session)
        except QuantizerError as error:  # of a conftest.py that was found while collecting
            raise pytest.UsageError(str(error)) from None
        if not suite:
            raise pytest.UsageError("--arrowquant-accuracy found no test of the built-in suite")
        items.extend(suite)
    for item in items:
        _resolve_marks(item)
    if config.stash[SETTINGS].accuracy:
        others = [item for item in items if MARK not in item.stash]
        if others:
            config.hook.pytest_deselected(items=others)
            items[:] = [item for item in items if MARK in item.stash]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With -n, let idle workers take over tests: some last a hundred times as long as others."""
    if not config.stash[SETTINGS].accuracy or config.getoption("dist") != "load":
        return None
    try:
        from xdist.scheduler import WorkStealingScheduling
    except ImportError:  # before pytest-xdist 3.2
        return None
    return WorkStealingScheduling(config, log)


def _resolve_marks(item: pytest.Item) -> None:
    """Keep the nearest mark, and give a test of one width both marks of it."""
    mark = next((mark for mark in item.iter_markers() if mark.name in FAMILY), None)
    if mark is None:
        return
    item.stash[MARK] = mark
    try:
        keywords = _keywords(item, mark)
    except TargetError:
        return  # said when the test is set up, so that it fails alone
    if isinstance(keywords.get("bits"), Integral) and keywords["bits"] in WIDTHS:
        item.add_marker(pytest.mark.arrowquant(**keywords), append=False)
        item.add_marker(f"arrowquant_int{keywords['bits']}")


def _keywords(item: pytest.Item, mark: pytest.Mark) -> dict[str, Any]:
    """The keywords of a mark, with the width from its name or from the parameter `bits`."""
    if mark.args:
        raise TargetError(f"@pytest.mark.{mark.name} takes keywords only, not {mark.args!r}")
    keywords, bits = dict(mark.kwargs), FAMILY[mark.name]
    given = keywords.pop("bits", None)
    if bits is not None and given not in (None, bits):
        raise TargetError(f"@pytest.mark.{mark.name}: bits={given!r} contradicts its name")
    if bits is None and given is None:
        callspec = getattr(item, "callspec", None)
        given = callspec.params.get("bits") if callspec else None
    return {"bits": given if bits is None else bits, **keywords}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin each attempt without records, and refuse a mark that is no good."""
    if not _is_accuracy_test(item):
        return
    item.stash[RECORDS] = []
    item.stash[KEYWORDS] = {}
    item.stash[ACCURACY] = None
    if mark := item.stash.get(MARK, None):
        from .expectation import validated

        try:
            item.stash[KEYWORDS] = validated(_keywords(item, mark), f"@pytest.mark.{mark.name}")
        except TargetError as error:
            pytest.fail(str(error), pytrace=False)


def _is_accuracy_test(item: pytest.Item) -> bool:
    wants = "arrowquant" in getattr(item, "fixturenames", ())
    return wants or MARK in item.stash or RECORDS in item.stash


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """A marked test that checked nothing has shown nothing, so it fails."""
    yield
    mark = item.stash.get(MARK, None)
    accuracy = item.stash[ACCURACY] if mark else None
    if mark and not (accuracy and accuracy.asserted):
        pytest.fail(
            f"marked {mark.name} but checked nothing: call arrowquant.check(reference, restored)",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send the records on the teardown report, which alone comes once and survives a crash later.

    Every report of an accuracy test carries something, so that the controller knows them.
    """
    report = yield
    if _is_accuracy_test(item):
        records = item.stash.get(RECORDS, []) if call.when == "teardown" else []
        accuracy = item.stash.get(ACCURACY, None) if call.when == "teardown" else None
        held = accuracy.invariants if accuracy else []
        report.__dict__[ATTRIBUTE] = {
            "records": [_sent(record, item, index) for index, record in enumerate(records)],
            "invariants": [{"nodeid": item.nodeid, **entry} for entry in held],
            "recorded": call.excinfo is not None and _is_recorded(call.excinfo.value),
        }
    return report


def _is_recorded(error: BaseException) -> bool:
    """True for a failure that a record or an entry of `invariants` tells of."""
    told = (AccuracyFailure, InvariantBroken)
    return isinstance(error, told) or isinstance(error.__context__, told)


def _sent(record: "AccuracyRecord", item: pytest.Item, index: int) -> str:
    """A record as JSON: a text costs the way from a worker, and memory, a fraction of its parts."""
    record.nodeid, record.index = item.nodeid, index
    return json.dumps(record.to_json(), allow_nan=False)

"""accuracy.json: written in one shape, read back with its version checked."""

import json
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..plain import Plain
from ..records import SCHEMA, SCHEMA_VERSION

PACKAGES = (
    "pytest", "pytest-benchmark", "numpy", "numba", "hypothesis", "safetensors", "ml_dtypes"
)  # fmt: skip
ENCODE = json.JSONEncoder(allow_nan=False, check_circular=False).encode


def report_pieces(
    records: list[Plain],
    errors: list[Plain],
    summary: Plain,
    left: list[Plain],
    seed: int,
    rollup: Plain | None = None,
    plan: Plain | None = None,
    checkpoint_notes: list[str] | None = None,
    invariants: list[Plain] | None = None,
) -> Iterator[str]:
    """The text of accuracy.json, a piece at a time: an audit's is long.

    An entry of a list is a line. ValueError for NaN or infinity, which JSON does not have.
    """
    report = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "environment": environment(),
        "summary": summary,
        "errors": errors,
        "left_in_full_precision": left,
        "checkpoint_notes": checkpoint_notes or [],
        "rollup": rollup,
        "plan": plan,
        "invariants": invariants or [],
        "records": records,
    }
    yield from _pieces(report, "\n")
    yield "\n"


def _pieces(value: Any, margin: str) -> Iterator[str]:
    """The JSON of a value; lists, and what holds lists or objects, with a line an entry."""
    if isinstance(value, list):
        entries = (ENCODE(entry) for entry in value)
        for index, text in enumerate(entries):
            yield f"{',' if index else '['}{margin} {text}"
        yield f"{margin}]" if value else "[]"
    elif isinstance(value, dict) and any(isinstance(v, dict | list) for v in value.values()):
        for index, (key, part) in enumerate(value.items()):
            yield f"{',' if index else '{'}{margin} {ENCODE(key)}: "
            yield from _pieces(part, f"{margin} ")
        yield f"{margin}}}"
    else:
        yield ENCODE(value)


def environment() -> dict[str, str]:
    """Versions and machine, without its name."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "pytest_arrowquant": version("pytest-arrowquant"),
        **{package: version(package) for package in PACKAGES},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def load_report(path: str | Path) -> Plain:
    """The content of an accuracy.json, of a file or of the folder that holds it.

    Raises OptionError for a file that is missing, not JSON, or of another schema.
    """
    file = Path(path) / "accuracy.json" if Path(path).is_dir() else Path(path)
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OptionError(f"report {file} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"report {file} is not JSON: {error}") from None
    found = (
        (report.get("schema"), report.get("schema_version")) if isinstance(report, dict) else None
    )
    if found != (SCHEMA, SCHEMA_VERSION):
        raise OptionError(
            f"report {file} is no {SCHEMA} report of version {SCHEMA_VERSION}: {found}"
        )
    return report  # type: ignore[no-any-return]

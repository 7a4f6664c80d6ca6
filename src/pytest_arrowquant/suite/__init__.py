"""The built-in suite: ordinary test modules that use the plugin as any test would."""

from importlib import import_module
from pathlib import Path

import pytest

from ..options import Settings


def collect(session: pytest.Session, settings: Settings) -> list[pytest.Item]:
    """The suite's tests, under ids that depend on nothing of the user's project.

    The module is collected as such, not by its path among the arguments: there the project's
    `python_files`, `testpaths`, conftest files or a file of the same name would drop or hide it.
    """
    name = "test_accuracy" if settings.original is None else "test_checkpoint"
    module = pytest.Module.from_parent(
        session,
        path=Path(__file__).with_name(f"{name}.py"),
        nodeid=f"pytest_arrowquant/suite/{name}.py",
    )
    module.obj = import_module(f"{__name__}.{name}")
    return list(session.genitems(module))

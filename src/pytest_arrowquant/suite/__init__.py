"""The built-in suite: ordinary test modules that use the plugin as any test would."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from ..errors import AccuracyFailure, ArrowQuantError, InvariantBroken
from ..fixtures import SETTINGS
from ..options import Settings
from ..vocabulary import MODALITIES
from .quantizers import are_own, quantizers_of, require_some, widths_of


def collect(session: pytest.Session) -> list[pytest.Item]:
    """The suite's tests, under ids that depend on nothing of the user's project.

    The module is collected as such, not by its path among the arguments: there the project's
    `python_files`, `testpaths`, conftest files or a file of the same name would drop or hide it.
    """
    if session.config.stash[SETTINGS].quantized is None:
        require_some(session.config)
    items: list[pytest.Item] = []
    for name in _modules(session.config):
        module = SuiteModule.from_parent(
            session,
            path=Path(__file__).with_name(f"{name}.py"),
            nodeid=f"pytest_arrowquant/suite/{name}.py",
        )
        module.obj = import_module(f"{__name__}.{name}")
        items += session.genitems(module)
    return sorted(items, key=_family_of)


def _modules(config: pytest.Config) -> list[str]:
    """The modules that a run asks for; named quantizers are run alone, without the recipes.

    The project's own are held to the invariants, too.
    """
    settings = config.stash[SETTINGS]
    if settings.quantized is not None:
        return ["test_audit"]
    invariants = ["test_invariants"] if are_own(config) else []
    if settings.original is not None:
        return ["test_checkpoint", *invariants]
    recipes = [] if invariants or settings.quantizers else ["test_optimization"]
    return [*recipes, "test_accuracy", *invariants]  # the longest first


def _family_of(item: pytest.Item) -> int:
    """Keeps the tests of a synthetic model together, for few workers to draw it."""
    from ..models import FAMILIES

    callspec = getattr(item, "callspec", None)
    family = callspec.params.get("family") if callspec else None
    return list(FAMILIES).index(family) if family else 0


def grid(config: pytest.Config, subjects: Iterable[tuple[str, Any]]) -> list[Any]:
    """Parameters (name, subject, bits, quantizer) of all that the options leave.

    subjects: what is quantized, by label. The id is the name, like text-int4-mse.
    """
    quantizers = quantizers_of(config)
    supported = {name: widths_of(config, quantizer) for name, quantizer in quantizers.items()}
    cases = [
        (f"{label}-int{bits}-{name}", subject, bits, quantizer)
        for label, subject in subjects
        for bits in sorted({bits for widths in supported.values() for bits in widths})
        for name, quantizer in quantizers.items()
        if bits in supported[name]
    ]
    return [pytest.param(*case, id=case[0]) for case in cases]


def families(settings: Settings) -> dict[str, str]:
    """The families of the modalities that the options leave, by label.

    The first of a modality goes by the modality's name, others by their own.
    """
    from ..models import FAMILIES

    wanted = settings.modalities or MODALITIES
    labels: dict[str, str] = {}
    for name, family in FAMILIES.items():
        if family.modality in wanted:
            labels[name if family.modality in labels else family.modality] = name
    return labels


@contextmanager
def said_plainly() -> Iterator[None]:
    """Fail with the message alone: the source of the suite helps nobody."""
    try:
        yield
    except (AccuracyFailure, InvariantBroken, ArrowQuantError) as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


class SuiteModule(pytest.Module):
    """A module whose tests are found by their own names, whatever the project calls its tests."""

    def funcnamefilter(self, name: str) -> bool:
        """True for what is a test here; the project's `python_functions` does not matter."""
        return name.startswith("test_")

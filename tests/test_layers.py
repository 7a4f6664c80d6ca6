"""Imports go down the layers only, and only the plugin's own modules know pytest."""

import ast
from pathlib import Path

import pytest

import pytest_arrowquant

PACKAGE = Path(pytest_arrowquant.__file__).parent
LAYERS = (
    "errors",
    "vocabulary",
    "plain",
    "cores",
    "hookspecs",
    "expectation",
    "kernels",
    "scheme",
    "arrays",
    "traits",
    "round_trip",
    "row_threads",
    "decoding",
    "binary_terms",
    "super_blocks",
    "tensor",
    "codes",
    "stored_form",
    "factor",
    "calibration",
    "quantizers",
    "transforms",
    "group_search",
    "recipes",
    "subject",
    "models",
    "strategies",
    "checkpoints",
    "row_blocks",
    "metrics",
    "nearest",
    "evidence",
    "case",
    "guards",
    "targets",
    "examine",
    "trial",
    "specimen",
    "breaking",
    "damage",
    "faults",
    "patient",
    "refitting",
    "tracing",
    "explain",
    "selfcheck",
    "record_parts",
    "records",
    "timing",
    "messages",
    "invariants",
    "conformance",
    "findings",
    "planning",
    "model_pass",
    "comparison",
    "audit",
    "accuracy",
    "options",
    "report",
    "fixtures",
    "run",
    "suite",
    "plugin",
)
KNOW_PYTEST = {"fixtures", "run", "suite", "plugin"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Absolute names of all that a module imports, wherever in it."""
    package = ["pytest_arrowquant", *path.relative_to(PACKAGE).parts[:-1]]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_has_its_layer():
    assert sorted({layer_of(path) for path in MODULES}) == sorted(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path):
    own = LAYERS.index(layer_of(path))
    for name in imports(path):
        if name.startswith("pytest_arrowquant."):
            target = name.split(".")[1]
            assert LAYERS.index(target) <= own, f"{path.name} imports {name}, a layer above it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_plugin_knows_pytest(path: Path):
    knows = any(name.partition(".")[0] == "pytest" for name in imports(path))
    assert not knows or layer_of(path) in KNOW_PYTEST


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "kernels").glob("[a-z]*.py")), ids=lambda path: path.name
)
def test_kernels_import_no_other_kernels(path: Path):
    """numba's disk cache watches the calling file alone: a helper elsewhere would be stale."""
    assert imports(path) == {"numpy", "pytest_arrowquant.kernels._jit.kernel"}


def test_public_names_resolve():
    for name in pytest_arrowquant.__all__:
        assert getattr(pytest_arrowquant, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'quantise'"):
        _ = pytest_arrowquant.quantise

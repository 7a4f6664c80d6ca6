"""What tests are handed. Everything heavy is imported inside, when a test asks for it."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from .options import Settings

if TYPE_CHECKING:
    from .accuracy import Accuracy
    from .audit import Audit
    from .models import SyntheticModel
    from .records import AccuracyRecord
    from .tensor import WidthKernels

SETTINGS = pytest.StashKey[Settings]()
RECORDS: "pytest.StashKey[list[AccuracyRecord]]" = pytest.StashKey()
KEYWORDS = pytest.StashKey[dict[str, Any]]()
AUDIT: "pytest.StashKey[Audit]" = pytest.StashKey()
QUANTIZERS: "pytest.StashKey[tuple[int, dict[str, Any]]]" = pytest.StashKey()
ACCURACY: "pytest.StashKey[Accuracy | None]" = pytest.StashKey()


@pytest.fixture
def arrowquant(request: pytest.FixtureRequest) -> "Iterator[Accuracy]":
    """Measure, record and assert the accuracy of restored weights.

    `arrowquant.check(reference, restored, bits=4)` fails the test where a target or guard is
    missed; `arrowquant.measure(...)` records alone. Bits and targets may come from the marker.
    """
    from .accuracy import Accuracy

    node = request.node
    settings = request.config.stash[SETTINGS]
    node.stash[ACCURACY] = accuracy = Accuracy(
        node.stash.setdefault(RECORDS, []),
        node.name,
        node.stash.get(KEYWORDS, {}),
        settings.targets,
        settings.seed,
        settings.selfcheck,
    )
    arguments = node.funcargs  # pytest drops them before it tears down a run that was stopped
    yield accuracy
    accuracy.join_benchmark(arguments.get("benchmark"))


def _kernels(bits: int) -> "WidthKernels":
    from .tensor import WidthKernels

    kernels = WidthKernels(bits)
    kernels.warm()
    return kernels


@pytest.fixture(scope="session")
def arrowquant_int2() -> "WidthKernels":
    """The compiled 2-bit kernels: quantize, dequantize, compare."""
    return _kernels(2)


@pytest.fixture(scope="session")
def arrowquant_int4() -> "WidthKernels":
    """The compiled 4-bit kernels: quantize, dequantize, compare."""
    return _kernels(4)


@pytest.fixture(scope="session")
def arrowquant_int8() -> "WidthKernels":
    """The compiled 8-bit kernels: quantize, dequantize, compare."""
    return _kernels(8)


@pytest.fixture(scope="session", params=[2, 4, 8], ids=["int2", "int4", "int8"])
def arrowquant_kernels(request: pytest.FixtureRequest) -> "WidthKernels":
    """The compiled kernels of each width in turn."""
    return _kernels(request.param)


@pytest.fixture(scope="session")
def arrowquant_models(request: pytest.FixtureRequest) -> "Callable[..., SyntheticModel]":
    """`arrowquant_models(family, scale="small")`: the synthetic model of a family or modality.

    The seed is that of the run; scale is --arrowquant-scale unless given.
    """
    from .models import synthetic_model

    settings = request.config.stash[SETTINGS]

    def model(family: str, scale: Any = settings.scale) -> "SyntheticModel":
        return synthetic_model(family, scale, settings.seed)

    return model


@pytest.fixture(scope="session")
def arrowquant_text_model(
    arrowquant_models: "Callable[..., SyntheticModel]",
) -> "SyntheticModel":
    """A masked-diffusion text model (MDLM)."""
    return arrowquant_models("text")


@pytest.fixture(scope="session")
def arrowquant_code_model(
    arrowquant_models: "Callable[..., SyntheticModel]",
) -> "SyntheticModel":
    """A diffusion language model of code."""
    return arrowquant_models("code")


@pytest.fixture(scope="session")
def arrowquant_image_model(
    arrowquant_models: "Callable[..., SyntheticModel]",
) -> "SyntheticModel":
    """A diffusion transformer for images (DiT)."""
    return arrowquant_models("image")


@pytest.fixture(scope="session")
def arrowquant_audio_model(
    arrowquant_models: "Callable[..., SyntheticModel]",
) -> "SyntheticModel":
    """A convolutional diffusion model of audio (WaveGrad's layers)."""
    return arrowquant_models("audio")


@pytest.fixture(scope="session", params=["text", "code", "image", "audio"])
def arrowquant_model(
    request: pytest.FixtureRequest, arrowquant_models: "Callable[..., SyntheticModel]"
) -> "SyntheticModel":
    """The synthetic model of each modality in turn."""
    return arrowquant_models(request.param)


class WithBenchmark:
    """Registered where pytest-benchmark is active.

    Its fixture is a declared argument, so that --benchmark-only and --benchmark-skip see it.
    """

    @pytest.fixture
    def arrowquant_benchmark(self, benchmark: Any) -> Any:
        """What times the built-in suite: pytest-benchmark's fixture."""
        return benchmark


class WithoutBenchmark:
    """Registered where pytest-benchmark is not active."""

    @pytest.fixture
    def arrowquant_benchmark(self) -> None:
        """What times the built-in suite: nothing."""

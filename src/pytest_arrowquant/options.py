"""The options: their names and defaults, and how their text becomes Settings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from .errors import OptionError, TargetError
from .vocabulary import MODALITIES, WIDTHS

REPORT_FOLDER = ".arrowquant"


class Settings(NamedTuple):
    """What one run was asked for; None for modalities or quantizers is all of them."""

    accuracy: bool
    report: Path | None
    bits: tuple[int, ...]
    modalities: tuple[str, ...] | None
    quantizers: tuple[str, ...] | None
    scale: str
    original: Path | None
    quantized: Path | None
    seed: int
    targets: Mapping[int, Mapping[str, float]]
    selfcheck: bool = False


class Setting(NamedTuple):
    """An option with an ini twin: --arrowquant-NAME on the command line, arrowquant_NAME there."""

    name: str
    metavar: str
    help: str
    parse: Callable[[str], Any]
    default: str | None = None
    ini_type: Literal["string", "int"] = "string"

    @property
    def flag(self) -> str:
        """The command-line option."""
        return f"--arrowquant-{self.name}"

    @property
    def ini(self) -> str:
        """The ini setting."""
        return f"arrowquant_{self.name}"


def parse_report(text: str) -> str:
    """A folder's path."""
    if not text.strip():
        raise OptionError(f"{text!r} names no folder")
    return text


def parse_bits(text: str) -> tuple[int, ...]:
    """'2,4' as widths, in ascending order."""
    names = _several(text, "bits", tuple(str(width) for width in WIDTHS))
    return tuple(sorted(int(name) for name in names))


def parse_modalities(text: str) -> tuple[str, ...]:
    """'text,image' as modalities."""
    return _several(text, "modalities", MODALITIES)


def parse_quantizers(text: str) -> tuple[str, ...]:
    """'rtn,mse' as names, none twice; which there are is known when all plugins are."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise OptionError(f"{text!r} has an empty name; expected names like 'rtn,mse'")
    return tuple(dict.fromkeys(names))


def parse_scale(text: str) -> str:
    """'small' or 'full'."""
    if text not in ("small", "full"):
        raise OptionError(f"{text!r} is not 'small' or 'full'")
    return text


def parse_seed(text: str) -> int:
    """A whole number from 0."""
    if not text.strip().isdecimal():
        raise OptionError(f"{text!r} is not a whole number from 0")
    return int(text)


def parse_targets(lines: list[str]) -> dict[int, dict[str, float]]:
    """Lines like '4: cosine=0.97, sqnr_db=18' as targets a width."""
    targets: dict[int, dict[str, float]] = {}
    for line in lines:
        width, colon, bounds = line.partition(":")
        if not colon or not width.strip().isdecimal():
            raise OptionError(
                f"arrowquant_targets: {line!r} is not like '4: cosine=0.97, sqnr_db=18'"
            )
        keywords = _bounds(bounds, line, int(width))
        targets[keywords.pop("bits")] = keywords
    return targets


def _bounds(text: str, line: str, bits: int) -> dict[str, Any]:
    from .expectation import validated

    bounds: dict[str, Any] = {"bits": bits}
    for part in text.split(","):
        key, _, value = part.partition("=")
        try:
            bounds[key.strip()] = float(value)
        except ValueError:
            raise OptionError(
                f"arrowquant_targets: {part.strip()!r} in {line!r} is not like 'cosine=0.97'"
            ) from None
    try:
        return validated(bounds, "arrowquant_targets")
    except TargetError as error:
        raise OptionError(str(error)) from None


def _several(text: str, what: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """A comma-separated choice among known names, in their order, none twice."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise OptionError(
            f"{text!r} names {unknown[0]!r}, which is none of the {what} {', '.join(known)}"
        )
    return tuple(name for name in known if name in names)


SETTINGS = (
    Setting(
        "report",
        "DIR",
        "Write reports to DIR in any run (with --arrowquant-accuracy: default .arrowquant under "
        "the root).",
        parse_report,
    ),
    Setting("bits", "2,4,8", "Widths of the built-in suite.", parse_bits, "2,4,8"),
    Setting(
        "modalities",
        "text,code,image,audio",
        "Modalities of the built-in suite (all).",
        parse_modalities,
    ),
    Setting(
        "quantizers",
        "NAME,...",
        "Quantizers of the suite: of the project's own, or of the built-in ones (all).",
        parse_quantizers,
    ),
    Setting(
        "scale",
        "small|full",
        "Synthetic models: true hidden sizes with few layers (small), or all layers (full).",
        parse_scale,
        "small",
    ),
    Setting("seed", "N", "Seed of all synthetic data (0).", parse_seed, "0", "int"),
)


def settings_of(config: Any) -> Settings:
    """The Settings of a run: command line, then ini, then default.

    config: pytest's, asked for its options and ini values alone. Raises OptionError.
    """
    values = {setting.name: _value(setting, config) for setting in SETTINGS}
    accuracy = config.getoption("arrowquant_accuracy")
    paths = {name: _path(config, name) for name in ("original", "quantized")}
    report = values.pop("report")
    if report is not None:
        report = Path(config.invocation_params.dir, report)
    elif accuracy:
        report = config.rootpath / REPORT_FOLDER
    return Settings(
        accuracy=accuracy,
        report=report,
        original=paths["original"],
        quantized=paths["quantized"],
        targets=parse_targets(config.getini("arrowquant_targets")),
        selfcheck=config.getoption("arrowquant_selfcheck"),
        **values,
    )


def _path(config: Any, name: str) -> Path | None:
    """The checkpoint of an option, relative to where pytest was started."""
    given = config.getoption(f"arrowquant_{name}")
    if given is None:
        return None
    if not config.getoption("arrowquant_accuracy"):
        raise OptionError(f"--arrowquant-{name} needs --arrowquant-accuracy")
    return Path(config.invocation_params.dir, given)


def _value(setting: Setting, config: Any) -> Any:
    given = config.getoption(setting.ini)
    if given is not None:
        return given
    try:
        value = config.getini(setting.ini)
        text = setting.default if value in (None, "") else str(value)
        return None if text is None else setting.parse(text)
    except Exception as error:  # pytest has several for a value of another type
        raise OptionError(f"{setting.ini}: {error}") from None

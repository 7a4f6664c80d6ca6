"""The quantizers under test: the project's own, by the hook, or else the built-in ones."""

from collections.abc import Iterable
from typing import Any

import pytest

from ..errors import QuantizerError
from ..fixtures import QUANTIZERS, SETTINGS
from ..invariants import applicable
from ..quantizers import QUANTIZERS as BUILT_IN
from ..quantizers import needs_calibration
from ..traits import traits_of
from ..vocabulary import WIDTHS

HOOK = "pytest_arrowquant_quantizers"


def are_own(config: pytest.Config) -> bool:
    """True where a project has brought quantizers of its own."""
    return bool(config.hook.pytest_arrowquant_quantizers.get_hookimpls())


def known_quantizers(config: pytest.Config) -> dict[str, Any]:
    """All quantizers, by name: the project's, or else the built-in ones.

    The hook is asked once, and again where more conftest files were found since. Raises
    QuantizerError for what it returns.
    """
    known = len(config.hook.pytest_arrowquant_quantizers.get_hookimpls())
    if QUANTIZERS not in config.stash or config.stash[QUANTIZERS][0] != known:
        found = _own(config) if known else {name: make() for name, make in BUILT_IN.items()}
        config.stash[QUANTIZERS] = (known, found)
    return config.stash[QUANTIZERS][1]


def quantizers_of(config: pytest.Config) -> dict[str, Any]:
    """The quantizers that the options leave, by name.

    Of the built-in ones, those that need calibration take part where they are named; the comparison
    of recipes has them otherwise. Raises QuantizerError for unknown names.
    """
    found, own = known_quantizers(config), are_own(config)
    wanted = config.stash[SETTINGS].quantizers
    if wanted is None:
        return {name: q for name, q in found.items() if own or not needs_calibration(q)}
    for name in wanted:
        if name not in found:
            raise QuantizerError(
                f"arrowquant_quantizers: {name!r} is none of the "
                f"{'project' if own else 'built-in'} quantizers {', '.join(found)}"
            )
    return {name: q for name, q in found.items() if name in wanted}


def widths_of(config: pytest.Config, quantizer: Any) -> list[int]:
    """The widths of a quantizer that the options leave; without one, all of them."""
    asked, supported = config.stash[SETTINGS].bits, traits_of(quantizer).bits
    everything = asked == WIDTHS
    return [bits for bits in supported if bits in asked or (everything and bits not in WIDTHS)]


def require_known(config: pytest.Config) -> None:
    """Raise QuantizerError for what is wrong already at the start.

    Names are looked up when all is collected, as a conftest file may be found then; but with
    workers, whose errors at that time nobody hears, now.
    """
    if config.getoption("dist", "no") == "no":
        known_quantizers(config)
    else:
        quantizers_of(config)


def require_some(config: pytest.Config) -> None:
    """Raise QuantizerError where the options leave no quantizer, or none of its widths."""
    quantizers = quantizers_of(config)
    if not any(widths_of(config, quantizer) for quantizer in quantizers.values()):
        widths = ", ".join(map(str, config.stash[SETTINGS].bits))
        raise QuantizerError(
            f"none of the quantizers {', '.join(quantizers)} has any of the widths {widths}"
        )


def _own(config: pytest.Config) -> dict[str, Any]:
    """What the hook returns, each checked, by name."""
    named: dict[str, Any] = {}
    try:
        for given in config.hook.pytest_arrowquant_quantizers(config=config):
            several = isinstance(given, Iterable) and not hasattr(given, "quantize")
            for quantizer in given if several else (given,):
                name = traits_of(quantizer).name
                if name in named:
                    raise QuantizerError(f"{HOOK}: two quantizers are called {name!r}")
                applicable(quantizer)
                named[name] = quantizer
    except QuantizerError:
        raise
    except (Exception, pytest.skip.Exception, pytest.fail.Exception) as error:
        raise QuantizerError(f"{HOOK} raised {type(error).__name__}: {error}") from error
    if not named:
        raise QuantizerError(f"{HOOK} returned no quantizer")
    return named

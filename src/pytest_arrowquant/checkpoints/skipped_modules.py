"""The modules that a config leaves as they are: lists, and how transformers reads them."""

import re
from functools import partial

from ..errors import CheckpointError
from .checkpoint import Checkpoint
from .entries import Exemption


def listed(checkpoint: Checkpoint, *keys: str) -> tuple[str, ...]:
    """The names under the first of the keys that says any; CheckpointError for no list of names."""
    for key in keys:
        names = checkpoint.quantization.get(key)
        if names is not None and not _are_names(names):
            raise CheckpointError(
                f"checkpoint {checkpoint.path}: {key} is {names!r}; expected a list of names"
            )
        if names:
            return tuple(names)
    return ()


def _are_names(names: object) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def pattern_of(checkpoint: Checkpoint, text: str, pattern: str) -> re.Pattern[str]:
    """The pattern that a config's text stands for; CheckpointError if it is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise CheckpointError(
            f"checkpoint {checkpoint.path}: the config has {text!r}, which is no pattern of names: "
            f"{error}"
        ) from None


def skipped(checkpoint: Checkpoint, *keys: str) -> tuple[Exemption, ...]:
    """An exemption a name that is listed.

    Source: transformers 5.23, should_convert_module: a pattern of the start of a module's name, up
    to the end of one of its parts, or the end of the name as it is.
    """
    patterns = {
        text: pattern_of(checkpoint, text, rf"(?:{text})(?:(?<=\.)|(?=\.|$))")
        for text in listed(checkpoint, *keys)
    }
    return tuple(
        Exemption(text, partial(_covers, text, pattern)) for text, pattern in patterns.items()
    )


def _covers(text: str, pattern: re.Pattern[str], module: str) -> bool:
    return pattern.match(module) is not None or module.endswith(text)

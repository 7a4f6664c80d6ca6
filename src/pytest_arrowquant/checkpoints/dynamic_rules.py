"""GPTQModel's `dynamic`: patterns of modules that are quantized in another way, or not at all."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import CheckpointError
from .checkpoint import Checkpoint
from .entries import Exemption

SKIP, CHANGE = "-:", "+:"  # before a pattern; nothing is as good as the second


@dataclass(frozen=True, slots=True)
class DynamicRules:
    """What each pattern changes of the config, in its order. Patterns match where names begin."""

    rules: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "DynamicRules":
        """Those of a checkpoint's config; CheckpointError where they cannot be read."""
        dynamic = checkpoint.quantization.get("dynamic") or {}
        if not isinstance(dynamic, Mapping):
            raise CheckpointError(
                f"checkpoint {checkpoint.path}: the config's dynamic is {dynamic!r}; expected "
                "patterns of modules, and what each changes"
            )
        for text in dynamic:
            try:
                re.compile(_pattern(text))
            except re.error as error:
                raise CheckpointError(
                    f"checkpoint {checkpoint.path}: the config's dynamic has {text!r}, which is "
                    f"no regular expression: {error}"
                ) from None
        return cls({text: own if isinstance(own, Mapping) else {} for text, own in dynamic.items()})

    def changes(self, module: str) -> Mapping[str, Any]:
        """What is said of this module instead; nothing for most."""
        return self.rules.get(self._first(module) or "", {})

    @property
    def exempt(self) -> tuple[Exemption, ...]:
        """The patterns of modules that are not quantized."""
        skipped = (text for text in self.rules if text.startswith(SKIP))
        return tuple(Exemption(text, partial(self._decides, text)) for text in skipped)

    def _first(self, module: str) -> str | None:
        """The first pattern that matches, which alone counts."""
        return next((text for text in self.rules if re.match(_pattern(text), module)), None)

    def _decides(self, text: str, module: str) -> bool:
        return self._first(module) == text


def _pattern(text: str) -> str:
    return text.removeprefix(SKIP).removeprefix(CHANGE)

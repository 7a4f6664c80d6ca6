"""The groups of modules in a compressed-tensors config, and what each says of its weights.

Source: compressed-tensors 0.20, quantization/quant_scheme.py and utils/match.py.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from ..errors import CheckpointError
from .checkpoint import Checkpoint
from .entries import Exemption
from .skipped_modules import listed, pattern_of

KINDS = {"num_bits": int, "group_size": int, "strategy": str, "type": str}
SETTINGS = ("num_bits", "type", "symmetric", "strategy", "group_size", "actorder")


@dataclass(frozen=True, slots=True)
class ConfigGroups:
    """Of each group the targets, as they stand and as patterns, and what is said of weights."""

    groups: tuple[tuple[Mapping[str, re.Pattern[str]], Mapping[str, Any]], ...]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Those of a checkpoint's config; CheckpointError for what is no group."""
        given = checkpoint.quantization.get("config_groups") or {}
        if not isinstance(given, Mapping):
            raise _error(checkpoint, "config_groups", given, "an object")
        groups = []
        for name, group in given.items():
            if not isinstance(group, Mapping):
                raise _error(checkpoint, name, group, "an object")
            targets = group.get("targets") or []
            if not isinstance(targets, list) or not all(isinstance(t, str) for t in targets):
                raise _error(checkpoint, f"targets of {name}", targets, "a list of names")
            weights = group.get("weights") or {}
            _require_weights(checkpoint, name, weights)
            groups.append(({text: _pattern(checkpoint, text) for text in targets}, weights))
        return cls(tuple(groups))

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the first group says, for the record."""
        first = self.groups[0][1] if self.groups else {}
        return {key: first[key] for key in SETTINGS if first.get(key) is not None}

    def weights(self, module: str) -> Mapping[str, Any]:
        """What is said of a module's weight: by its name before its class; empty if nothing."""
        for targets, weights in self.groups:
            if any(pattern.match(module) for pattern in targets.values()):
                return weights
        of_classes = [weights for targets, weights in self.groups if any(map(_is_class, targets))]
        return of_classes[0] if of_classes else {}


def ignored(checkpoint: Checkpoint) -> tuple[Exemption, ...]:
    """An exemption an entry of `ignore`: a name, or a pattern of the start of names after `re:`."""
    return tuple(
        Exemption(text, partial(_covers, _pattern(checkpoint, text)))
        for text in listed(checkpoint, "ignore")
    )


def _pattern(checkpoint: Checkpoint, text: str) -> re.Pattern[str]:
    if text.startswith("re:"):
        return pattern_of(checkpoint, text, text.removeprefix("re:"))
    return re.compile(rf"{re.escape(text)}\Z")


def _covers(pattern: re.Pattern[str], module: str) -> bool:
    return pattern.match(module) is not None


def _is_class(target: str) -> bool:
    return target.isidentifier() and target[0].isupper()


def _require_weights(checkpoint: Checkpoint, name: str, weights: object) -> None:
    if not isinstance(weights, Mapping):
        raise _error(checkpoint, f"weights of {name}", weights, "an object")
    for key, kind in KINDS.items():
        value = weights.get(key)
        if value is not None and type(value) is not kind:
            wanted = "a whole number" if kind is int else "a word"
            raise _error(checkpoint, f"{key} of {name}", value, wanted)
    block = weights.get("block_structure")
    if block is not None and not _is_block(block):
        raise _error(checkpoint, f"block_structure of {name}", block, "two whole numbers from 1")


def _is_block(block: object) -> bool:
    return isinstance(block, list) and [type(n) for n in block] == [int, int] and min(block) > 0


def _error(checkpoint: Checkpoint, what: str, found: object, wanted: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {checkpoint.path}: {what} is {found!r}; expected {wanted}")

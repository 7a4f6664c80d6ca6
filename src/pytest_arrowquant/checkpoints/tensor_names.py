"""What the name of a tensor says: its module, its layer, its kind, and which names are like it."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import islice

from .stored_tensor import StoredTensor

# what wrappers put before the names of the model that they hold
PREFIX = re.compile(
    r"(?:(?:0\.auto_model|_orig_mod|module|base_model|auto_model|model|language_model|text_model|llm"
    r"|transformer|gpt_neox|backbone|bert|roberta|distilbert|mpnet)\.)+"
)
NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block|blk)\.(\d+)(?:\.|$)")
BUFFER = re.compile(
    r"(?:.*\.)?(?:inv_freq|position_ids|masked_bias|rope_freqs\.weight"
    r"|rope_factors_(?:long|short)\.weight)"
)
MASK = re.compile(r".*\.(?:attn|attention)\.bias")
COMPARED = 300  # kinds of names; models have fewer
OLD_NORM = {".gamma": ".weight", ".beta": ".bias"}


def prefix(name: str) -> str:
    """The names of wrappers that a name begins with, such as `model.language_model.`."""
    found = PREFIX.match(name)
    return found[0] if found else ""


def canonical(name: str) -> str:
    """The name without wrappers, and with TensorFlow's gamma and beta as weight and bias."""
    bare = name[len(prefix(name)) :]
    return next(
        (bare.removesuffix(old) + new for old, new in OLD_NORM.items() if bare.endswith(old)), bare
    )


def role(name: str) -> str:
    """The name with a `*` for each number: the same for a tensor in all layers and experts."""
    return NUMBER.sub("*", name)


def module_of(name: str) -> str:
    """The module that a weight or bias belongs to; the name itself of any other parameter."""
    return name.removesuffix(".weight").removesuffix(".bias")


def layer_number(name: str) -> int | None:
    """The number of the layer; None outside the layers."""
    found = LAYER.search(name)
    return int(found[1]) if found else None


def is_buffer(tensor: StoredTensor) -> bool:
    """True for what is computed, not learned: rotary frequencies, positions, causal masks."""
    if MASK.fullmatch(tensor.name):
        return len(tensor.shape) >= 2 and tensor.shape[-1] == tensor.shape[-2]
    return BUFFER.fullmatch(tensor.name) is not None


def some(names: Sequence[str]) -> str:
    """The first name, and how many more there are."""
    return repr(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


class Likeness:
    """Names, to be asked for those most like another: in kind first, then in layer."""

    def __init__(self, names: Iterable[str]) -> None:
        self.roles: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self.roles[role(name)].append(name)

    def closest(self, name: str, count: int = 2) -> tuple[str, ...]:
        """Up to `count` names, the most like first; none if nothing is like it."""
        numbers = NUMBER.findall(name)
        found = []
        for kind in get_close_matches(role(name), islice(self.roles, COMPARED), count):
            parts = kind.split("*")
            same = parts[0] + "".join(n + part for n, part in zip(numbers, parts[1:], strict=False))
            found.append(same if same in self.roles[kind] else self.roles[kind][0])
        return tuple(found)

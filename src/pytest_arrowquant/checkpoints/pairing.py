"""Pairing: which weight of a quantized checkpoint each tensor of its original has become.

Names and headers alone are read; and values where two tensors may be one, or a bias zero.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from .checkpoint import Checkpoint
from .entries import Contents
from .exemptions import undeclared
from .experts import pair_experts
from .fused import pair_fused
from .gguf_names import pair_gguf
from .left_out import left_out
from .pair import Pair, Pairing, Unpaired
from .stored_tensor import StoredTensor
from .tensor_names import Likeness, canonical, prefix
from .tied import pair_tied

__all__ = ["Pair", "Pairing", "pair"]

CONV1D = (".c_attn.weight", ".c_fc.weight", ".c_proj.weight", ".q_attn.weight")
EXPLAINED = 10  # of what is on one side alone, how many are told what is most like them


def pair(original: Checkpoint, quantized: Checkpoint, contents: Contents) -> Pairing:
    """Every tensor of the original with what it has become, and what has come from none.

    contents: of `quantized`.
    """
    left = Unpaired(dict(original.tensors), dict(contents.entries))
    config = _of_text(original.config)
    gguf = "general.architecture" in quantized.metadata
    pairs = _same_names(left)
    notes: list[str] = []
    if gguf:
        found, said = pair_gguf(left, quantized.metadata, config)
        pairs, notes = pairs + found, notes + said
    found, said = _same_but_prefixes(left)
    pairs, notes = pairs + found, notes + said
    found, problems = pair_experts(left, config)
    pairs += found
    pairs += pair_fused(left, config)
    pairs += pair_tied(left, pairs, original, quantized)
    notes += left_out(left, contents.entries, config)
    problems += _unfit(original, contents, pairs)
    turned = _conv1d(original.tensors)
    pairs = [_transposed(one, gguf) if one.name in turned else one for one in pairs]
    pairs += [*_missing(left, contents), *_extra(left, original)]
    undeclared_ones, of_config = undeclared(contents, _names(pairs))
    pairs = [_with_problem(one, undeclared_ones) for one in pairs]
    pairs.sort(key=lambda one: one.name)
    return Pairing(tuple(pairs), (*problems, *of_config), tuple(notes))


def _unfit(original: Checkpoint, contents: Contents, pairs: list[Pair]) -> Iterator[str]:
    """Why these two may be the wrong ones to compare."""
    method = original.quantization.get("quant_method")
    narrow = (t for t in original.tensors.values() if len(t.shape) == 2 and t.reason_left)
    if method is not None and (found := next(narrow, None)) is not None:
        yield (
            f"the original is quantized itself ({method}; {found.name!r} is {found.stored_dtype}): "
            "give one that is not"
        )
    if original.tensors and not pairs:
        yield (
            f"none of the {len(original.tensors)} tensors of the original has a counterpart among "
            f"the {len(contents.entries)} quantized ones: are they of the same model?"
        )


def _of_text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the language model, which may be a part of it."""
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, Mapping) else config


def _same_names(left: Unpaired) -> list[Pair]:
    both = [name for name in left.originals if name in left.entries]
    return [Pair(name, *left.take(name, name)) for name in both]


def _same_but_prefixes(left: Unpaired) -> tuple[list[Pair], list[str]]:
    """What is called the same but for the wrappers before it, if it is so on both sides once."""
    originals, entries = _by_canonical(left.originals), _by_canonical(left.entries)
    pairs = []
    changes: Counter[tuple[str, str]] = Counter()
    for bare, names in originals.items():
        if len(names) == len(entries.get(bare, ())) == 1:
            name, entry_name = names[0], entries[bare][0]
            pairs.append(Pair(name, *left.take(name, entry_name)))
            changes[prefix(name), prefix(entry_name)] += 1
    notes = [
        f"{count} tensors are named {there + '…'!r} where the original has {here + '…'!r}"
        for (here, there), count in changes.items()
        if here != there
    ]
    return pairs, notes


def _by_canonical(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[canonical(name)].append(name)
    return found


def _conv1d(originals: Mapping[str, StoredTensor]) -> set[str]:
    """The weights that are [in, out], as GPT-2's: their biases tell, where they are not square."""
    named = {name: tensor for name, tensor in originals.items() if name.endswith(CONV1D)}
    for name, tensor in named.items():
        bias = originals.get(name.removesuffix("weight") + "bias")
        if bias is not None and len(tensor.shape) == 2:
            rows, columns = tensor.shape
            if rows != columns and bias.shape == (columns,):
                return {n for n, t in named.items() if len(t.shape) == 2}
    return set()


def _transposed(found: Pair, gguf: bool) -> Pair:
    """The pair of such a weight: turned where it is quantized, and in every GGUF."""
    assert found.original is not None
    plain = found.entry.plain if found.entry else None
    as_it_is = plain is not None and not gguf and plain.shape == found.original.shape
    return found if as_it_is else replace(found, transposed=True)


def _missing(left: Unpaired, contents: Contents) -> list[Pair]:
    """What the quantized checkpoint lacks."""
    likely, all_of_them = Likeness(left.entries), Likeness(contents.entries)
    pairs = []
    for count, (name, tensor) in enumerate(left.originals.items()):
        problem = "missing in the quantized checkpoint"
        if name in left.sought:
            problem += f": {left.sought[name]}"
        if count < EXPLAINED:
            closest = likely.closest(name) or all_of_them.closest(name)
            problem += _like("; the closest there", closest)
        pairs.append(Pair(name, tensor, None, problem=problem))
    return pairs


def _extra(left: Unpaired, original: Checkpoint) -> list[Pair]:
    """What the quantized checkpoint alone has."""
    likely, all_of_them = Likeness(left.originals), Likeness(original.tensors)
    pairs = []
    for count, (name, entry) in enumerate(left.entries.items()):
        problem = "only in the quantized checkpoint"
        if count < EXPLAINED:
            closest = likely.closest(name) or all_of_them.closest(name)
            problem += _like("; the closest in the original", closest)
        pairs.append(Pair(name, None, entry, problem=problem))
    return pairs


def _like(text: str, names: Iterable[str]) -> str:
    listed = ", ".join(map(repr, names))
    return f"{text}: {listed}" if listed else ""


def _names(pairs: Iterable[Pair]) -> dict[str, str]:
    """The original's name of each entry; where it has one."""
    return {one.entry.name: one.name for one in pairs if one.entry is not None}


def _with_problem(found: Pair, problems: Mapping[str, str]) -> Pair:
    problem = problems.get(found.entry.name) if found.entry is not None else None
    if problem is None:
        return found
    return replace(found, problem="; ".join(filter(None, (found.problem, problem))))

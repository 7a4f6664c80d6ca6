"""What a config keeps out of quantization, held against what is there."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from .entries import Contents, Entry, Exemption
from .tensor_names import Likeness, canonical, module_of, role

PATTERN = "*?[]()|^$\\+:"
TIED_HEAD = "lm_head"  # often exempt, and in no file where it is tied to the embedding
NO_PATTERN = str.maketrans("", "", "?[]()|^$\\+:")


def undeclared(
    contents: Contents, originals: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Problems by entry, and problems of the config; none where the format keeps no such list.

    An entry has one if it is quantized though an exemption covers it, or if it is stored as it is,
    covered by none, while others of its role are quantized (GPTQModel#1680). An exemption that
    covers no module has one (vllm#48508). originals: the names that the entries have there, by
    which a config may call them too.
    """
    if contents.exempt is None:
        return {}, []
    modules = {module_of(name) for names in originals.items() for name in names}
    covering, problems = _covering(contents.exempt, sorted(modules | {TIED_HEAD}))
    quantized = [name for name, entry in contents.entries.items() if entry.load]
    plain = [name for name, entry in contents.entries.items() if _left_out(entry)]
    kinds = Counter(map(role, quantized))
    total = kinds + Counter(map(role, plain))
    found = {}
    for name in (*quantized, *plain):
        aliases = (module_of(name), module_of(originals.get(name, name)))
        exemption = next((covering[alias] for alias in aliases if alias in covering), None)
        count = kinds[role(name)]
        if exemption and contents.entries[name].load:
            found[name] = f"quantized, though the config exempts it by {exemption.text!r}"
        elif not exemption and not contents.entries[name].load and count:
            found[name] = (
                f"stored unquantized and not declared, while {count} of {total[role(name)]} of "
                "its kind are quantized"
            )
    return found, problems


def _left_out(entry: Entry) -> bool:
    """True for what could have been quantized."""
    return entry.plain is not None and not entry.plain.reason_left


def _covering(
    exempt: Iterable[Exemption], names: list[str]
) -> tuple[dict[str, Exemption], list[str]]:
    """The exemption of each module that has one, and a problem for each that covers none."""
    covering: dict[str, Exemption] = {}
    problems, likeness = [], Likeness(names)
    bare: dict[str, list[str]] = {}
    for exemption in exempt:
        covered = [n for n in _candidates(exemption.text, names) if exemption.covers(n)]
        if not covered and _is_name(exemption.text):
            # a config names modules as the model has them, a file as they were saved
            bare = bare or _by_canonical(names)
            covered = bare.get(canonical(exemption.text), [])
        if not covered and not _is_class(exemption.text):
            problems.append(_matches_nothing(exemption.text, likeness))
        covering |= dict.fromkeys(covered, exemption)
    return covering, problems


def _candidates(text: str, names: list[str]) -> Collection[str]:
    """The modules that an exemption may cover: of a name or glob that begins as some in a layer,
    these, since lists of thousands of such are common; else all.
    """
    start = text.rstrip("*")
    if not _is_name(start) or role(start) == start:
        return names
    at = stop = bisect_left(names, start)
    while stop < len(names) and names[stop].startswith(start):
        stop += 1
    return names[at:stop] or names


def _by_canonical(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(canonical(name), []).append(name)
    return found


def _is_name(text: str) -> bool:
    return not set(PATTERN) & set(text)


def _is_class(text: str) -> bool:
    """True for the name of a class of modules, which a checkpoint does not hold."""
    return text.isidentifier() and text[0].isupper()


def _matches_nothing(text: str, likeness: Likeness) -> str:
    words = text.removeprefix("re:").replace(".*", "").translate(NO_PATTERN)
    closest = likeness.closest(words, 1)
    return f"ignore {text!r} matches no module" + "".join(f": did you mean {c!r}?" for c in closest)

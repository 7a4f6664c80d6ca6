"""The comparison of recipes: what each gains over the baseline of its family, a table a family."""

from collections import Counter
from collections.abc import Iterable

from ..plain import Plain
from .table import Column, lines_of, number, signed, verdict

BASELINE, RECOMMENDED, COMPARATOR = "baseline", "recommended", "q_dit"
OPTIMIZATIONS = ("time_aware", "spatial", "all", RECOMMENDED)
RECIPES = (BASELINE, *OPTIMIZATIONS, COMPARATOR)

LEGEND = (
    "recipes: output SQNR in dB and its gain over the baseline of the same widths",
    "(* best, ! misses a bound; bpw: bits per weight as stored, by width)",
)

Recipe = dict[str, Plain]  # its record at each pair of widths, such as "W4A8"
Family = dict[str, Recipe]


def split(records: list[Plain]) -> tuple[list[Plain], list[Plain]]:
    """The records that stand for themselves, and those of the comparison of recipes."""
    compared = [record for record in records if record.get("recipe")]
    return [record for record in records if not record.get("recipe")], compared


def families(records: list[Plain]) -> dict[str, Family]:
    """Records of the comparison by family, recipe and pair; of several attempts, the last."""
    found: dict[str, Family] = {}
    for record in records:
        family = found.setdefault(record["subject"]["family"], {})
        family.setdefault(record["recipe"], {})[pair_of(record)] = record
    return {
        name: {recipe: family[recipe] for recipe in in_order(family)}
        for name, family in found.items()
    }


def in_order(recipes: Iterable[str]) -> list[str]:
    """These recipes, each once, as RECIPES has them; any others after those."""
    named = dict.fromkeys(recipes)
    return [
        *(name for name in RECIPES if name in named),
        *(name for name in named if name not in RECIPES),
    ]


def pair_of(record: Plain) -> str:
    """The widths of weights and activations, such as "W4A8"; a record of no layer has "W?A8"."""
    weights, activations = record["scheme"].get("bits", "?"), record["activations"]
    return f"W{weights}" + (f"A{activations['bits']}" if activations else "")


def pairs_of(records: list[Plain]) -> list[str]:
    """The pairs of widths, the wide activations first, then by the width of the weights."""
    widths = {
        pair_of(record): (
            -record["activations"]["bits"] if record["activations"] else -32,
            record["scheme"].get("bits", 32),
        )
        for record in records
    }
    return sorted(widths, key=widths.__getitem__)


def gain_of(record: Plain | None) -> float | None:
    """The gain in output SQNR over the baseline, in dB; None where there is none to tell."""
    improvement = record and record["improvement"]
    return improvement["sqnr_db"] if improvement else None


def sqnr_of(record: Plain | None) -> float | None:
    """The output SQNR in dB; None where it is not finite or was not measured."""
    return record["metrics"]["output_sqnr_db"] if record else None


def comparison_lines(records: list[Plain]) -> list[str]:
    """A table a family, and under it which optimization does not help; empty without records."""
    lines = []
    for name, family in families(records).items():
        pairs = pairs_of([record for recipe in family.values() for record in recipe.values()])
        lines += _table(name, family, pairs) + _unhelpful(family, pairs) + _against(family, pairs)
    return [*LEGEND, *lines] if lines else []


def comparison_notes(records: list[Plain]) -> list[str]:
    """The notes of each family, each note once."""
    notes = Counter((r["subject"]["family"], note) for r in records for note in r["notes"])
    return [
        f"recipes of {family}: {note} ({count} record{'s' * (count > 1)})"
        for (family, note), count in notes.items()
    ]


def _table(name: str, family: Family, pairs: list[str]) -> list[str]:
    recipes = list(family.values())
    columns: list[Column] = [
        ("", [verdict(recipe.values()) for recipe in recipes]),
        (name, list(family)),
        *((pair, _results([recipe.get(pair) for recipe in recipes])) for pair in pairs),
    ]
    for weights in dict.fromkeys(pair.partition("A")[0] for pair in pairs):
        of_width = [pair for pair in pairs if pair.partition("A")[0] == weights]
        columns.append((f"{weights} bpw", [_rate(recipe, of_width) for recipe in recipes]))
    return lines_of(columns)


def _results(records: list[Plain | None]) -> list[str]:
    """The cells of one pair of widths: output SQNR, gain and marks, each below the other."""
    known = [sqnr for sqnr in map(sqnr_of, records) if sqnr is not None]
    best = f"{max(known):.2f}" if len(known) > 1 else None
    shown = [number(sqnr_of(record), ".2f") for record in records]
    gains = ["" if gain_of(record) is None else signed(gain_of(record)) for record in records]
    marks = [
        "*" * (text == best) + "!" * (record is not None and not record["passed"])
        for text, record in zip(shown, records, strict=True)
    ]
    return [
        f"{text:>{_width(shown)}} {gain:>{_width(gains)}}{mark:<{_width(marks)}}"
        for text, gain, mark in zip(shown, gains, marks, strict=True)
    ]


def _width(texts: list[str]) -> int:
    return max(map(len, texts)) or 1


def _rate(recipe: Recipe, pairs: list[str]) -> str:
    """Bits per weight; where they differ by the width of the activations, all of them."""
    rates = [recipe[pair]["metrics"]["bits_per_weight"] for pair in pairs if pair in recipe]
    return "/".join(dict.fromkeys(number(rate, ".2f") for rate in rates)) or "-"


def _unhelpful(family: Family, pairs: list[str]) -> list[str]:
    """A line for each optimization that somewhere gains nothing."""
    lines = []
    for name in OPTIMIZATIONS:
        gains = {pair: gain_of(family.get(name, {}).get(pair)) for pair in pairs}
        places = [
            f"{pair}: {signed(gain)} dB"
            for pair, gain in gains.items()
            if gain is not None and round(gain, 2) <= 0
        ]
        if places:
            lines.append(f"  {name} does not help at {', '.join(places)}")
    return lines


def _against(family: Family, pairs: list[str]) -> list[str]:
    """Where the recommended recipe leads the comparator, and where the leader pays with bits."""
    ours, theirs = family.get(RECOMMENDED, {}), family.get(COMPARATOR, {})
    places: dict[str, list[str]] = {"ahead of": [], "level with": [], "behind": []}
    for pair in (pair for pair in pairs if pair in ours and pair in theirs):
        lead = difference(ours[pair], theirs[pair], "output_sqnr_db")
        bits = difference(ours[pair], theirs[pair], "bits_per_weight")
        if lead is not None:
            paid = f" with {bits:+.2f} bits/weight" if bits and bits * lead > 0 else ""
            word = "ahead of" if lead > 0 else "behind" if lead < 0 else "level with"
            places[word].append(f"{pair}: {signed(lead)} dB{paid}")
    said = [f"{word} {COMPARATOR} at {', '.join(at)}" for word, at in places.items() if at]
    return [f"  recommended is {'; '.join(said)}"] if said else []


def difference(one: Plain, other: Plain, metric: str) -> float | None:
    """By how much one record's metric is above the other's, to two decimals."""
    values = one["metrics"][metric], other["metrics"][metric]
    return None if None in values else round(values[0] - values[1], 2)

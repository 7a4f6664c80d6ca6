"""What the charts are made of: records in words, axes with a line a record, dots and legends.

Colours are Okabe and Ito's, which colour-blind readers tell apart; vermillion and a cross mean
failed and nothing else. No pyplot: its state is global, and belongs to the user's tests.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, cycle, repeat
from math import floor, inf, log10
from operator import attrgetter
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..plain import Plain
from .places import Place
from .ranking import room

MOST_ROWS = 40
MOST_TEXT = 48  # characters of a name
CROWD, GOLDEN = 8, 0.618  # more dots in a row are spread, each far from the last
MOST_DRAWN = 1000  # dots of one look; more are a picture, in SVG too
MOST_NINES = 8  # the end of the cosine axis: an exact copy is drawn there

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#444444")
OTHER, GREY, BAND, FAILED = "#AAAAAA", "#5F5F5F", "#F5F5F5", "#D55E00"
PALE, DEEP = np.array(to_rgb("#EDF7F4")), np.array(to_rgb("#8FD0BB"))  # just and well passed
MARKERS = "osD^vPXp<>"
FONT = "DejaVu Sans"  # comes with matplotlib
STYLE: dict[str, Any] = {
    "font.family": FONT,
    "font.size": 9,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.07,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titlecolor": GREY,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "arrowquant",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One record in the words of the charts; `missed` are the metrics that miss their bound.

    place: in the model, of a record of an audit; its subject is then the tensor's role.
    """

    record: Plain
    subject: str
    quantizer: str
    width: str
    label: str
    tensor: str
    cosine: float | None
    target: float | None
    missed: list[str]
    place: Place | None = None

    @property
    def failed(self) -> bool:
        """The record's verdict, turned round."""
        return not self.record["passed"]

    @property
    def room(self) -> float:
        """The least of its margins, each as a share; below 0 where a bound is missed."""
        return room(self.record)


Dot = tuple[float, float, bool, str, str]  # place, whether it failed, colour, marker
Row = tuple[str, str, list[Entry]]  # text to the left and right; what is drawn, none in a heading


def bits_of(record: Plain) -> float:
    """What records are sorted by: their width, unknown ones last."""
    bits = record["scheme"].get("bits")
    return inf if bits is None else float(bits)


def entry_of(record: Plain, place: Place | None = None) -> Entry:
    """The record in the words of the charts."""
    subject, targets, bits = record["subject"], record["targets"], record["scheme"].get("bits")
    checkpoint = subject["kind"] == "checkpoint"
    source = place.role if place else checkpoint and subject["source"]
    name = shown_text(subject["modality"] or source or record["name"])
    tensor = ""
    if checkpoint and record["layers"]["count"] < 2:
        tensor = shown_text(next((t["tensor"] for t in targets if t["tensor"]), record["name"]))
    width = "" if bits is None else f"{bits} bits"
    parts = (record["quantizer"].get("name"), *record.get("optimizations", ()))
    quantizer = shown_text(" + ".join(filter(None, parts)))
    label = " · ".join(filter(None, (tensor or name, width, quantizer)))
    return Entry(
        record,
        name,
        quantizer,
        width or "width not given",
        label,
        tensor or label,
        record["metrics"].get("cosine"),
        next((target["bound"] for target in targets if target["metric"] == "cosine"), None),
        [target["metric"] for target in targets if not target["passed"]],
        place,
    )


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont(FONT)).get_charmap())


def shown_text(text: str) -> str:
    """`text` on one line: escapes for what the font lacks, and no middle where it is too long."""
    shown = text
    if not (text.isascii() and text.isprintable()):
        shown = "".join(
            char if char.isprintable() and ord(char) in _glyphs() else ascii(char)[1:-1]
            for char in text
        )
    half = MOST_TEXT // 2
    return shown if len(shown) <= MOST_TEXT else f"{shown[: half - 1]}…{shown[-half:]}"


def without(entries: Iterable[Entry], what: str) -> str:
    """What a chart says of records of which there is nothing to draw."""
    number = len(list(entries))
    return f"{number} record{'s' * (number > 1)} without {what}." if number else ""


def grouped(entries: Iterable[Entry], *attributes: str) -> dict[tuple[str, ...], list[Entry]]:
    """Entries by the values of these attributes, in the order in which they first come."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    values = attrgetter(*attributes)
    for entry in entries:
        key = values(entry) if len(attributes) > 1 else (values(entry),)
        groups.setdefault(key, []).append(entry)
    return groups


def worst_first(group: list[Entry], by: Callable[[Entry], float]) -> tuple[bool, float]:
    """Sorts what failed first, then the lowest."""
    return not any(entry.failed for entry in group), min(map(by, group))


def worst_shown(number: int, what: str) -> str:
    """The note that not all are shown; empty where they are."""
    text = f"Shown: the worst {MOST_ROWS} of {number} {what}, failed ones first."
    return text if number > MOST_ROWS else ""


def new_figure(width: float, height: float, title: str) -> Figure:
    """A figure of this many inches, its title to the left."""
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.012, ha="left")
    return figure


def row_chart(rows: Sequence[Row], across: float, title: str, *notes: str) -> tuple[Figure, Axes]:
    """Axes with a line a row, the first on top, text on both sides and `across` inches between."""
    width = across + sum(0.072 * max(len(row[side]) for row in rows) for side in (0, 1))
    figure = new_figure(width, 2.0 + 0.24 * len(rows), title)
    axes = figure.add_subplot()
    axes.set_title("\n".join(filter(None, notes)))
    for column, side in enumerate((axes, axes.twinx())):
        side.set_ylim(len(rows) - 0.4, -0.6)
        side.set_yticks(range(len(rows)), [str(row[column]) for row in rows])
        side.tick_params(axis="y", length=0)
        side.spines[["left", "right"]].set_visible(False)
        for (*_, entries), text in zip(rows, side.get_yticklabels(), strict=True):
            failed = any(entry.failed for entry in entries)
            text.set_color(FAILED if failed else GREY if column else "black")
            text.set_fontweight("normal" if entries and not failed else "bold")
    for y in range(1, len(rows), 2):
        axes.axhspan(y - 0.5, y + 0.5, color=BAND if rows[y][2] else "white", lw=0, zorder=0)
    return figure, axes


def looks(entries: Sequence[Entry], attribute: str) -> tuple[dict[str, str], dict[str, str]]:
    """A colour for each value of the attribute, grey for late ones; a marker for each quantizer."""
    named = dict.fromkeys(getattr(entry, attribute) for entry in entries)
    quantizers = dict.fromkeys(entry.quantizer for entry in entries)
    colours = zip(named, chain(PALETTE, repeat(OTHER)), strict=False)
    return dict(colours), dict(zip(quantizers, cycle(MARKERS), strict=False))


def draw_dots(axes: Axes, dots: Sequence[Dot]) -> None:
    """Records' dots, those that failed on top; the rim says that one did. Small where many are."""
    looks: dict[tuple[bool, str, str], tuple[list[float], list[float]]] = {}
    for x, y, failed, colour, marker in dots:
        xs, ys = looks.setdefault((failed, colour, marker), ([], []))
        xs.append(x)
        ys.append(y)
    number = Counter(failed for _, _, failed, *_ in dots)
    for (failed, colour, marker), (xs, ys) in sorted(looks.items(), key=lambda item: item[0][0]):
        rim, width = (FAILED, 2.0) if failed else ("white", 0.7)
        size = 7 if number[failed] <= MOST_DRAWN else 3
        axes.plot(
            xs, ys, marker, color=colour, ms=size, mec=rim, mew=width * size / 7, alpha=0.8,
            zorder=3, rasterized=len(xs) > MOST_DRAWN,
        )  # fmt: skip


def draw_legend(
    figure: Figure, colours: dict[str, str], markers: dict[str, str], *more: Line2D
) -> None:
    """Beside the axes, so that it covers nothing: what colours, then what markers mean."""
    named = {name: colour for name, colour in colours.items() if colour != OTHER}
    if len(named) < len(colours):
        named[f"{len(colours) - len(named)} others"] = OTHER
    keys = [legend_key(name, color=colour) for name, colour in named.items()]
    keys += [
        legend_key(name, marker=marker, mfc="none") for name, marker in markers.items() if name
    ]
    failed = legend_key("failed", mfc="none", mec=FAILED, mew=2)
    figure.legend(handles=[*keys, failed, *more], loc="outside right upper")


def legend_key(label: str, **look: Any) -> Line2D:
    """One line of a legend."""
    # the space keeps a name with a leading underscore, which would hide it, in the legend
    return Line2D([], [], label=f" {label}", **{"color": GREY, "marker": "o", "ls": "", **look})


def nines(cosine: float) -> float:
    """Where a cosine is drawn: 0.9 at 1, 0.99 at 2; so 0.92 and 0.99998 can both be read."""
    return min(-log10(max(1 - cosine, 10.0**-MOST_NINES)), float(MOST_NINES))


def cosine_text(cosine: float | None) -> str:
    """The cosine to two figures of what it lacks of 1."""
    if cosine is None:
        return "no metrics"
    at = nines(cosine)
    return "1" if at == MOST_NINES else f"{cosine:.{max(3, floor(at) + 2)}f}"

"""The chart of the comparison: a panel a family, a row a recipe, a dot a pair of widths."""

from collections.abc import Sequence
from itertools import cycle
from math import ceil
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plain import Plain
from .chart_parts import (
    FAILED,
    GREY,
    MARKERS,
    PALETTE,
    Entry,
    legend_key,
    new_figure,
    shown_text,
    without,
)
from .gains import (
    BASELINE,
    COMPARATOR,
    RECOMMENDED,
    Family,
    difference,
    families,
    gain_of,
    in_order,
    pairs_of,
)
from .table import signed

MOST_COLUMNS = 3
APART = 0.3  # of a row, between the comparator and the recipes above it
BAND, LOSS = "#E3F2EC", "#E9E9E9"
MISSED: dict[str, Any] = {"mec": FAILED, "mew": 1.8}
NOTES = (
    "Output SQNR of a recipe, less that of the baseline of the same family and widths.",
    "Hollow, with its figure, on grey: no gain.",
    "Right of a panel, where they differ: bits per weight above the baseline's, mean of the dots.",
)

Looks = dict[str, tuple[str, str]]  # the colour and marker of each pair of widths


def optimization_gain(entries: Sequence[Entry]) -> Figure:
    """How many dB each recipe gains over the baseline of its family and widths."""
    records = [entry.record for entry in entries]
    found, pairs = families(records), pairs_of(records)
    names = in_order(name for family in found.values() for name in family if name != BASELINE)
    rows = {name: y + APART * (name == COMPARATOR) for y, name in enumerate(names)}
    looks = dict(zip(pairs, zip(cycle(PALETTE), cycle(MARKERS), strict=False), strict=False))
    columns = min(MOST_COLUMNS, len(found))
    lines = ceil(len(found) / columns)
    width = 2.6 + max(3.2 * columns, 4.6)
    height = 1.4 + lines * (0.6 + (0.12 + 0.13 * len(pairs)) * len(rows))
    figure = new_figure(width, height, "Output SQNR gained by each recipe")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    _set_limits(panels[0, 0], rows, [gain_of(record) or 0.0 for record in records])
    for axes, (name, family) in zip(panels.flat, found.items(), strict=False):
        axes.set_title(shown_text(name), color="black", weight="bold")
        _draw_panel(axes, family, rows, looks)
    _name_axes(panels, rows, len(found))
    undrawn = (e for e in entries if e.record["recipe"] != BASELINE and gain_of(e.record) is None)
    notes = (*NOTES, without(undrawn, "a gain: not drawn"))
    figure.supxlabel("\n".join(filter(None, notes)), x=0.012, ha="left", size=9, color=GREY)
    keys = [legend_key(pair, color=look[0], marker=look[1]) for pair, look in looks.items()]
    keys.append(legend_key("no gain", mfc="white"))
    keys.append(legend_key("misses a bound", mfc="none", **MISSED))
    figure.legend(handles=keys, loc="outside right upper")
    return figure


def _set_limits(axes: Axes, rows: dict[str, float], gains: list[float]) -> None:
    """The same for all panels: 0 and every gain, with room for a figure left of the lowest."""
    low, high = min(0.0, *gains), max(0.0, *gains)
    span = high - low or 1.0
    axes.set(
        xlim=(low - (0.22 if low < 0 else 0.06) * span, high + 0.06 * span),
        ylim=(max(rows.values()) + 0.5, -0.5),
        yticks=list(rows.values()),
        yticklabels=[shown_text(name) + "\n(comparator)" * (name == COMPARATOR) for name in rows],
    )


def _name_axes(panels: Any, rows: dict[str, float], used: int) -> None:
    """Numbers under the lowest panel of each column; the recommended recipe's name in bold."""
    columns = panels.shape[1]
    for place, axes in enumerate(panels.flat):
        if place >= used:
            axes.set_axis_off()
        elif place + columns >= used:
            axes.tick_params(axis="x", labelbottom=True)
            axes.set_xlabel("gain, dB")
    for axes in panels[:, 0]:
        for name, label in zip(rows, axes.get_yticklabels(), strict=True):
            label.set_fontweight("bold" if name == RECOMMENDED else "normal")


def _draw_panel(axes: Axes, family: Family, rows: dict[str, float], looks: Looks) -> None:
    """One family: the recommended recipe on a band, the comparator below a line."""
    axes.axvspan(axes.get_xlim()[0], 0, color=LOSS, lw=0, zorder=0.6)
    axes.axvline(0, color="black", lw=1.6, zorder=2)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    right = axes.get_yaxis_transform()
    for name, y in rows.items():
        if name == RECOMMENDED:
            axes.axhspan(y - 0.5, y + 0.5, color=BAND, lw=0, zorder=0.5)
        if name == COMPARATOR:
            axes.axhline(y - 0.5 - APART / 2, color=GREY, lw=1, ls="--")
        paid = _paid(family, name)
        axes.text(1.02, y, paid, transform=right, va="center", color=GREY, size=8)
        for place, (pair, look) in enumerate(looks.items()):
            record = family.get(name, {}).get(pair)
            if record is not None and gain_of(record) is not None:
                at = y + 0.8 * ((place + 0.5) / len(looks) - 0.5)
                _draw_gain(axes, record, at, *look)


def _draw_gain(axes: Axes, record: Plain, y: float, colour: str, marker: str) -> None:
    """A dot at the end of a line from zero; hollow and with its figure where nothing is gained."""
    gain = gain_of(record) or 0.0
    none = round(gain, 2) <= 0
    look: dict[str, Any] = {"mfc": "white" if none else colour, "mew": 1.6 if none else 0.0}
    if not record["passed"]:
        look |= MISSED
    axes.hlines(y, 0, gain, color=colour, lw=1.2, alpha=0.6)
    axes.plot(gain, y, marker, color=colour, ms=6, zorder=3, **look)
    if none:
        label = axes.annotate(signed(gain), (gain, y), (-6, 0), textcoords="offset points")
        label.set(ha="right", va="center", size=7)


def _paid(family: Family, name: str) -> str:
    """What a recipe stores a weight beyond the baseline; empty where that is nothing or unknown."""
    recipe, baseline = family.get(name, {}), family.get(BASELINE, {})
    both = ((record, baseline[pair]) for pair, record in recipe.items() if pair in baseline)
    more = [difference(*records, "bits_per_weight") for records in both]
    known = [bits for bits in more if bits is not None]
    return f"{signed(fmean(known))} bits" if any(known) else ""

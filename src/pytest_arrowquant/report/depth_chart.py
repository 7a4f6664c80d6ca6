"""The chart over depth: the SQNR of an audit's tensors against the number of their layer."""

from collections.abc import Iterable, Sequence
from itertools import cycle
from math import log10
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .chart_parts import (
    CROWD,
    FAILED,
    GREY,
    MARKERS,
    MOST_DRAWN,
    OTHER,
    PALETTE,
    Dot,
    Entry,
    draw_dots,
    grouped,
    legend_key,
    new_figure,
    shown_text,
    without,
    worst_first,
)

MOST_ROLES = 12
MOST_NUMBERS = 24  # along the axis
MOST_NAMED = 3
APART = 2.0  # layers, between two stacks of them, and from the last to what is outside
LOWEST_DB = -10.0  # what is below is garbage, and would press the others together
OUTSIDE = "", None  # where a tensor is that belongs to no layer
OWN_MARKERS = MARKERS.replace("X", "")  # a cross is a failure
KEY = (
    "A dot a tensor, a line through the medians of those that passed.\n"
    "Where a layer has many of a role (experts): their median, and a band from lowest to highest."
)
LINES = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))

Look = tuple[str, str]  # colour and marker
Layer = tuple[str, int | None]  # stack and number; None outside the layers


def depth(entries: Sequence[Entry]) -> Figure | None:
    """SQNR of the tensors over the layers, a series a role; None without depth or any SQNR."""
    layers = {layer for entry in entries if (layer := _layer(entry))[1] is not None}
    if len(layers) < 2 or all(_sqnr_db(entry) is None for entry in entries):
        return None
    places = _along(layers, any(_layer(entry) == OUTSIDE for entry in entries))
    end = max(places.values())
    figure = new_figure(min(16.0, 10 + 0.06 * end), 6.4, "Accuracy over depth")
    axes = figure.add_subplot()
    looks, size = _looks(entries), max(3.5, min(7.0, 300 / (end + 1)))
    for (role,), group in reversed(grouped(entries, "subject").items()):
        _draw_role(axes, group, places, looks[role], size)
    _draw_failed(axes, entries, places, looks)
    lines = _draw_targets(axes, entries)
    _name_layers(axes, places)
    axes.set_title("\n".join(filter(None, _notes(entries))))
    axes.set(ylabel="SQNR, dB", xlim=(-1, end + 1))
    axes.grid(axis="y")
    _draw_legend(figure, entries, looks, lines)
    return figure


def _layer(entry: Entry) -> Layer:
    place = entry.place
    return (place.stack, place.layer) if place else OUTSIDE


def _along(layers: Iterable[Layer], outside: bool) -> dict[Layer, float]:
    """Where each layer is drawn: stacks side by side in the order of their names, then the rest.

    outside: whether there is a rest.
    """
    places: dict[Layer, float] = {}
    start = 0.0
    for stack in sorted({name for name, _ in layers}):
        numbers = sorted(number for name, number in layers if name == stack and number is not None)
        places |= {(stack, number): start + number - numbers[0] for number in numbers}
        start = places[stack, numbers[-1]] + APART
    return {**places, OUTSIDE: start} if outside else places


def _sqnr_db(entry: Entry) -> float | None:
    """What is drawn; None where it is not finite, was not measured, or is garbage."""
    sqnr_db = entry.record["metrics"]["sqnr_db"]
    return None if sqnr_db is None or sqnr_db < LOWEST_DB else float(sqnr_db)


def _looks(entries: Iterable[Entry]) -> dict[str, Look]:
    """Colour and marker of each role, those in most layers first; grey dots for the rest."""
    layers: dict[str, set[Layer]] = {}
    for entry in entries:
        layers.setdefault(entry.subject, set()).add(_layer(entry))
    roles = sorted(layers, key=lambda role: (-len(layers[role]), role))
    looks = dict.fromkeys(roles, (OTHER, "o"))
    own = zip(
        roles[:MOST_ROLES], zip(cycle(PALETTE), cycle(OWN_MARKERS), strict=False), strict=False
    )
    return looks | dict(own)


def _draw_role(
    axes: Axes, entries: Iterable[Entry], places: dict[Layer, float], look: Look, size: float
) -> None:
    """One role, of what passed: a dot a tensor and a line; a median and a band where many are."""
    stacks: dict[str, dict[float, list[float]]] = {}
    for entry in entries:
        layer, sqnr_db = _layer(entry), _sqnr_db(entry)
        if sqnr_db is not None and not entry.failed:
            stacks.setdefault(layer[0], {}).setdefault(places[layer], []).append(sqnr_db)
    colour, marker = look
    for stack, values in stacks.items():
        xs = sorted(values)
        middle, many = [median(values[x]) for x in xs], max(map(len, values.values())) > CROWD
        axes.plot(xs, middle, color=colour, lw=1, alpha=0.6, zorder=2)
        if many:
            ends = [min(values[x]) for x in xs], [max(values[x]) for x in xs]
            axes.fill_between(xs, *ends, color=colour, alpha=0.15, lw=0, zorder=1)
            axes.vlines(xs, *ends, color=colour, alpha=0.35, lw=size / 3, zorder=1)
        dots = [(x, y) for x in xs for y in ([median(values[x])] if many else values[x])]
        small = 7 if not stack else size if many or len(dots) == len(xs) else size * 0.6
        axes.plot([x for x, _ in dots], [y for _, y in dots], marker, color=colour, ms=small,
                  mec="white", mew=0.5, zorder=3, rasterized=len(dots) > MOST_DRAWN)  # fmt: skip


def _draw_failed(
    axes: Axes, entries: Iterable[Entry], places: dict[Layer, float], looks: dict[str, Look]
) -> None:
    """The failed ones with their rim; a cross at the foot for what has no place above."""
    failed = [entry for entry in entries if entry.failed]
    dots: list[Dot] = [
        (places[_layer(entry)], sqnr_db, True, *looks[entry.subject])
        for entry in failed
        if (sqnr_db := _sqnr_db(entry)) is not None
    ]
    draw_dots(axes, dots)
    feet = {places[_layer(entry)] for entry in failed if _sqnr_db(entry) is None}
    axes.plot(sorted(feet), [0.02] * len(feet), "X", color=FAILED, ms=8, mec="white", mew=0.5,
              transform=axes.get_xaxis_transform(), zorder=4)  # fmt: skip


def _draw_targets(axes: Axes, entries: Iterable[Entry]) -> list[Line2D]:
    """A line a width that has a single target; returns their keys for the legend.

    A cosine c is reached at 10 log10(1 / (1 - c^2)) dB, if the scale is right. What is far below
    all tensors is not drawn, and said.
    """
    bounds: dict[str, set[tuple[str, float]]] = {}
    drawn = [sqnr_db for entry in entries if (sqnr_db := _sqnr_db(entry)) is not None]
    for entry in entries:
        for target in entry.record["targets"]:
            if target["metric"] in ("cosine", "sqnr_db"):
                bounds.setdefault(entry.width, set()).add((target["metric"], target["bound"]))
    keys, low, high = [], min(drawn, default=0.0), max(drawn, default=0.0)
    for style, (width, of_width) in zip(cycle(LINES), sorted(bounds.items()), strict=False):
        for metric, bound in sorted(of_width) if len(of_width) == 1 else ():
            at = -10 * log10(max(1 - bound**2, 1e-12)) if metric == "cosine" else bound
            near = at >= low - max(3.0, high - low)
            if near:
                axes.axhline(at, color="black", lw=1.1, ls=style, zorder=2)
            name = "cosine" if metric == "cosine" else "SQNR"
            text = f"{width}: {name} {bound:g}" + ("" if near else f"\n ({at:.1f} dB, far below)")
            keys.append(legend_key(text, color="black", marker="", ls=style if near else ""))
    return keys


def _name_layers(axes: Axes, places: dict[Layer, float]) -> None:
    """The numbers of layers along the axis, few enough to be read; lines between stacks."""
    stacks = list(dict.fromkeys(stack for stack, number in places if number is not None))
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 10**6) if len(places) / s <= MOST_NUMBERS)
    ticks = {
        at: str(number)
        for (_, number), at in places.items()
        if number is not None and number % step == 0
    }
    if OUTSIDE in places:
        ticks[places[OUTSIDE]] = "outside"
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.tick_params(axis="x", length=0)
    ends = [max(at for (name, _), at in places.items() if name == stack) for stack in stacks[:-1]]
    for end in ends:
        axes.axvline(end + APART / 2, color=GREY, lw=0.8)
    shown = ", ".join(map(shown_text, stacks[:4])) + (", …" if len(stacks) > 4 else "")
    axes.set_xlabel("layer" if len(stacks) == 1 else f"layer (side by side: {shown})")


def _notes(entries: Sequence[Entry]) -> list[str]:
    """What is above the axes."""
    failed = sorted((e for e in entries if e.failed), key=lambda e: worst_first([e], _room))
    names = ",\n    ".join(shown_text(entry.record["name"]) for entry in failed[:MOST_NAMED])
    more = f" and {len(failed) - MOST_NAMED} more" if len(failed) > MOST_NAMED else ""
    lost = [entry for entry in entries if _sqnr_db(entry) is None]
    return [
        KEY,
        f"Failed: {names}{more}." if failed else "",
        f"A cross at the foot: failed, without an SQNR or below {LOWEST_DB:g} dB."
        if any(entry.failed for entry in lost)
        else "",
        without((entry for entry in lost if not entry.failed), "a finite SQNR: not drawn"),
    ]


def _room(entry: Entry) -> float:
    return entry.room


def _draw_legend(
    figure: Figure, entries: Sequence[Entry], looks: dict[str, Look], lines: list[Line2D]
) -> None:
    own = {role: look for role, look in looks.items() if look[0] != OTHER}
    keys = [legend_key(role, color=colour, marker=mark) for role, (colour, mark) in own.items()]
    if others := len(looks) - len(own):
        keys.append(legend_key(f"{others} others", color=OTHER))
    if any(entry.failed for entry in entries):
        keys.append(legend_key("failed", mfc="none", mec=FAILED, mew=2))
    figure.legend(handles=[*keys, *lines], loc="outside right upper")

"""The chart of accuracy against compression: SQNR by true bits per weight, and the bound on it."""

from collections.abc import Sequence
from math import atan, degrees

from matplotlib.figure import Figure

from ..metrics import DB_PER_BIT
from .chart_parts import (
    PALETTE,
    Dot,
    Entry,
    draw_dots,
    draw_legend,
    looks,
    new_figure,
    without,
)


def tradeoff(entries: Sequence[Entry]) -> Figure | None:
    """SQNR by true bits per weight; below, its distance to the Gaussian bound; None without any."""
    points = [
        (metrics["bits_per_weight"], metrics["sqnr_db"], entry)
        for entry in entries
        for metrics in (entry.record["metrics"],)
        if metrics.get("bits_per_weight") is not None and metrics.get("sqnr_db") is not None
    ]
    if not points:
        return None
    figure = new_figure(11, 8, "Accuracy against compression")
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    colours, markers = looks(entries, "subject")
    most = 1.06 * max(rate for rate, *_ in points)
    places = {name: min(place, len(PALETTE)) for place, name in enumerate(colours)}
    dots: list[tuple[Dot, Dot]] = []
    for rate, sqnr_db, entry in points:
        look = (entry.failed, colours[entry.subject], markers[entry.quantizer])
        aside = (places[entry.subject] - max(places.values()) / 2) * most / 120
        distance = sqnr_db - DB_PER_BIT * rate
        dots.append(((rate, sqnr_db, *look), (rate + aside, distance, *look)))
    for axes, side in ((top, 0), (bottom, 1)):
        draw_dots(axes, [dot[side] for dot in dots])
    top.plot([0, most], [0, most * DB_PER_BIT], "black", lw=1.2)
    bottom.plot([0, most], [0, 0], "black", lw=1.2)
    top.text(
        most / 2,
        most / 2 * DB_PER_BIT,
        "Shannon bound for Gaussian weights: 6.02 dB per bit\n",
        ha="center",
        va="center",
        rotation=degrees(atan(DB_PER_BIT)),
        transform_rotates_text=True,
        in_layout=False,
    )
    drawn = {id(entry) for *_, entry in points}
    undrawn = (entry for entry in entries if id(entry) not in drawn)
    missing = without(undrawn, "both a finite SQNR and a stored size: not drawn")
    top.set_title("\n".join(filter(None, ("Better: further up and to the left.", missing))))
    top.set(xlim=(0, most), ylabel="SQNR, dB")
    bottom.set(
        ylabel="distance to the bound, dB",
        xlabel="bits per weight, as stored (lower panel: subjects side by side)",
    )
    for axes in (top, bottom):
        axes.grid()
    draw_legend(figure, colours, markers)
    return figure

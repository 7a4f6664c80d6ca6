"""The chart over depth: of made-up audits, from two layers to eighty of many experts."""

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.style
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from audit_records import audited, broken, language_model, missing
from pytest_arrowquant.report import charts
from pytest_arrowquant.report.chart_parts import FAILED, STYLE, entry_of
from pytest_arrowquant.report.charts import CHARTS, write_charts
from pytest_arrowquant.report.depth_chart import MOST_ROLES, depth
from pytest_arrowquant.report.places import places_of
from test_charts import check_picture, words

Plain = dict[str, Any]


def flawed(layers: int = 8, experts: int = 0) -> list[Plain]:
    """A model with two broken tensors, one that is missing, and one that is lost in noise."""
    records = {record["name"]: record for record in language_model(layers, experts)}
    block, last = "model.layers.1", f"model.layers.{layers - 1}"
    inner = f"{block}.mlp.experts.1" if experts else f"{block}.mlp"
    for name in (f"{block}.self_attn.k_proj.weight", f"{inner}.down_proj.weight"):
        records[name] = broken(name)
    records["model.layers.0.self_attn.q_proj.weight"] = missing(
        "model.layers.0.self_attn.q_proj.weight"
    )
    records[f"{last}.self_attn.v_proj.weight"] = broken(f"{last}.self_attn.v_proj.weight", -40.0)
    return list(records.values())


def two_stacks() -> list[Plain]:
    roles = {"encoder": ("fc1", "fc2"), "decoder": ("fc1", "fc2", "encoder_attn.q_proj")}
    return [
        audited(f"{side}.layers.{layer}.{role}.weight", 20.0 + layer)
        for side in roles
        for layer in range(5)
        for role in roles[side]
    ]


def many_roles() -> list[Plain]:
    names = [f"model.layers.{layer}.role_{number:02}.weight" for layer in range(4)
             for number in range(MOST_ROLES + 3)]  # fmt: skip
    return [audited(name, 18.0 + place % 7) for place, name in enumerate(names)]


CASES = {
    "two layers": lambda: flawed(2),
    "a decoder": lambda: flawed(32),
    "few experts": lambda: flawed(12, 8),
    "many experts": lambda: flawed(40, 32),
    "two stacks": two_stacks,
    "many roles": many_roles,
    "eight bits": lambda: language_model(12, bits=8),
    "all failed": lambda: [broken(record["name"]) for record in language_model(6)],
}
WHOLE = ("many experts", "all failed")  # with the other charts
OTHERS = [name for name in CHARTS if name not in ("depth", "optimization_gain")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The charts of every case, each in a folder of its own; of most, the one over depth alone."""
    found = {}
    for case, records in CASES.items():
        found[case] = tmp_path_factory.mktemp("depth")
        write_charts(records(), found[case]) if case in WHOLE else over_depth(
            records(), found[case]
        )
    return found


def over_depth(records: list[Plain], folder: Path) -> list[str]:
    """The names of what is written where there is no other chart: the others take time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "CHARTS", {"depth": CHARTS["depth"]})
        return [path.name for path in charts.write_charts(records, folder)]


def drawn(records: list[Plain]) -> Figure:
    """The figure of all that is not plain and equal, laid out."""
    places = places_of(record["name"] for record in records)
    shown = [record for record in records if record["stored_as"] != "plain"]
    with matplotlib.style.context(["default", STYLE]):
        figure = depth([entry_of(record, places[record["name"]]) for record in shown])
        assert figure is not None
        figure.canvas.draw()
    return figure


def points(axes: Axes, colour: str, marker: str, failed: bool = False) -> list[tuple[float, float]]:
    """Where the dots of this look are."""
    found = []
    for line in axes.lines:
        rim = line.get_markeredgecolor() == FAILED
        if (line.get_color(), line.get_marker(), rim) == (colour, marker, failed):
            found += [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
    return found


def look_of(figure: Figure, role: str) -> tuple[str, str]:
    """Colour and marker of a role, as the legend says."""
    (legend,) = figure.legends
    texts = [text.get_text().strip() for text in legend.get_texts()]
    handle = legend.legend_handles[texts.index(role)]
    return handle.get_color(), handle.get_marker()


@pytest.mark.parametrize("case", CASES)
def test_it_is_a_picture(folders, case):
    check_picture(folders[case], "depth")
    assert (folders[case] / "depth.svg").stat().st_size < 1 << 20


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("case", WHOLE)
def test_the_other_charts_of_an_audit_are_pictures_too(folders, case, name):
    check_picture(folders[case], name)
    assert (folders[case] / f"{name}.svg").stat().st_size < 1 << 20


@pytest.mark.parametrize("case", CASES)
def test_nothing_lies_over_the_legend(case):
    figure = drawn(CASES[case]())
    (axes,), (legend,) = figure.axes, figure.legends
    beside = legend.get_window_extent()
    for text in (axes._left_title, axes.xaxis.label, *axes.get_xticklabels()):
        assert not text.get_window_extent().overlaps(beside), text.get_text()
    assert beside.y0 > 0


def test_a_dot_is_a_tensor_at_its_layer_and_sqnr():
    figure = drawn(records := language_model(5))
    found = points(figure.axes[0], *look_of(figure, "gate_proj"))
    expected = {
        (float(record["name"].split(".")[2]), record["metrics"]["sqnr_db"])
        for record in records
        if "gate_proj" in record["name"]
    }
    assert len(expected) == 5
    assert {*found} == expected


def test_what_failed_has_a_rim_and_is_named_and_stands_apart_from_the_line(folders):
    figure = drawn(flawed(8))
    axes, look = figure.axes[0], look_of(figure, "k_proj")
    assert points(axes, *look, failed=True) == [(1.0, 0.5)]
    assert min(y for _, y in points(axes, *look)) > 15
    found = words(folders["a decoder"], "depth")
    assert "Failed: model.layers.31.self_attn.v_proj.weight," in found
    assert any(text.endswith(" and 1 more.") for text in found)


def test_what_has_no_place_above_is_a_cross_at_the_foot(folders):
    (axes,) = drawn(flawed(8)).axes
    (crosses,) = (line for line in axes.lines if line.get_marker() == "X" and len(line.get_xdata()))
    assert [float(x) for x in crosses.get_xdata()] == [0.0, 7.0]  # missing, and at -40 dB
    assert crosses.get_color() == FAILED
    said = "A cross at the foot: failed, without an SQNR or below -10 dB."
    assert said in words(folders["two layers"], "depth")
    assert axes.get_ylim()[0] > -10


def test_many_experts_are_a_median_and_a_band():
    records = language_model(3, experts=20)
    figure = drawn(records)
    (axes,), look = figure.axes, look_of(figure, "up_proj")
    values = {
        layer: [r["metrics"]["sqnr_db"] for r in records
                if f"layers.{layer}." in r["name"] and "up_proj" in r["name"]]
        for layer in range(3)
    }  # fmt: skip
    assert len(values[0]) == 20
    assert points(axes, *look) == [(layer, median(values[layer])) for layer in range(3)]
    bands = [path for band in axes.collections for path in band.get_paths() if len(path) > 4]
    ends = {(float(x), float(y)) for path in bands for x, y in path.vertices}
    for layer, of_layer in values.items():
        assert {(layer, min(of_layer)), (layer, max(of_layer))} <= ends


def test_a_single_target_a_width_is_a_line_where_the_right_scale_puts_it():
    """Against a vector at that cosine: what lies across it has the energy that remains."""
    along, across = np.eye(2)
    restored = 0.9 * (0.9 * along + (1 - 0.9**2) ** 0.5 * across)  # the scale of least error
    expected = -10 * np.log10(((along - restored) ** 2).sum())
    (axes,) = (figure := drawn(flawed(8))).axes
    lines = [line for line in axes.lines if line.get_color() == "black"]
    assert [float(line.get_ydata()[0]) for line in lines] == [pytest.approx(expected)]
    texts = [text.get_text().strip() for text in figure.legends[0].get_texts()]
    assert texts[-1] == "4 bits: cosine 0.9"


def test_a_target_far_below_all_tensors_is_said_and_not_drawn():
    (axes,) = (figure := drawn(language_model(12, bits=8))).axes
    assert not [line for line in axes.lines if line.get_color() == "black"]
    assert axes.get_ylim()[0] > 30
    last = figure.legends[0].get_texts()[-1].get_text().strip()
    assert last == "8 bits: cosine 0.95\n (10.1 dB, far below)"


def test_two_targets_of_one_width_are_no_line():
    records = language_model(4)
    records[-1]["targets"][0]["bound"] = records[3]["targets"][0]["bound"] = 0.97
    figure = drawn(records)
    assert not [line for line in figure.axes[0].lines if line.get_color() == "black"]
    assert not any("cosine" in text.get_text() for text in figure.legends[0].get_texts())


def test_stacks_stand_side_by_side():
    figure = drawn(two_stacks())
    (axes,) = figure.axes
    assert {x for x, _ in points(axes, *look_of(figure, "fc1"))} == {*range(5), *range(6, 11)}
    assert {x for x, _ in points(axes, *look_of(figure, "q_proj"))} == {*range(5)}
    assert axes.get_xlabel() == "layer (side by side: decoder.layers, encoder.layers)"
    assert [text.get_text() for text in axes.get_xticklabels()] == 2 * ["0", "1", "2", "3", "4"]


def test_what_is_outside_the_layers_stands_at_the_end(folders):
    figure = drawn(records := language_model(5))
    (axes,) = figure.axes
    (head,) = (r["metrics"]["sqnr_db"] for r in records if r["name"] == "lm_head.weight")
    assert points(axes, *look_of(figure, "lm_head")) == [(6.0, head)]
    assert [text.get_text() for text in axes.get_xticklabels()] == [*"01234", "outside"]
    assert "embed_tokens" not in words(folders["a decoder"], "depth")  # plain, and equal


def test_roles_differ_in_look_and_late_ones_are_grey(folders):
    figure = drawn(many_roles())
    looks = {look_of(figure, f"role_{number:02}") for number in range(MOST_ROLES)}
    assert len(looks) == MOST_ROLES
    assert not any(marker == "X" for _, marker in looks)  # a cross is a failure
    found = words(folders["many roles"], "depth")
    assert "3 others" in found
    assert f"role_{MOST_ROLES:02}" not in found


WITHOUT_DEPTH = {
    "no layers": [audited("encoder.weight", 20.0), audited("decoder.weight", 20.0)],
    "one layer": [audited("layers.0.fc1.weight", 20.0), audited("layers.0.fc2.weight", 20.0)],
    "nothing measured": [missing(f"layers.{layer}.fc1.weight") for layer in range(3)],
    "no tensors": [],
}


@pytest.mark.parametrize("case", WITHOUT_DEPTH)
def test_without_depth_there_is_no_chart_and_an_old_one_goes(tmp_path, case):
    (tmp_path / "depth.png").write_bytes(b"of an earlier run")
    assert over_depth(WITHOUT_DEPTH[case], tmp_path) == []
    assert not (tmp_path / "depth.png").exists()


def test_of_what_is_missing_there_is_no_accuracy_against_compression(tmp_path):
    names = {path.stem for path in write_charts(WITHOUT_DEPTH["nothing measured"], tmp_path)}
    assert names == {"accuracy_by_bit_width", "target_achievement", "layers"}


def test_other_records_have_no_depth(tmp_path):
    records = language_model(4)
    for record in records:
        record["stored_as"] = None
    assert over_depth(records, tmp_path) == []


def test_same_records_same_bytes(folders, tmp_path):
    over_depth(CASES["many experts"](), tmp_path)
    for kind in ("png", "svg"):
        name = f"depth.{kind}"
        assert (tmp_path / name).read_bytes() == (folders["many experts"] / name).read_bytes()


def test_many_dots_are_a_picture_in_svg(folders):
    """1,280 dots a role: their width chart has an image for them instead of a shape each."""
    svg = (folders["many experts"] / "accuracy_by_bit_width.svg").read_text(encoding="utf-8")
    assert "<image " in svg
    assert svg.count("<use ") < 1000
    assert "<image " not in (folders["all failed"] / "accuracy_by_bit_width.svg").read_text()

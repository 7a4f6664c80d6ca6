"""The charts: of made-up records, whose numbers are plausible and nothing more."""

import random
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib.style
import pytest
from matplotlib import image

from pytest_arrowquant.report.chart_parts import STYLE, entry_of
from pytest_arrowquant.report.charts import write_charts
from pytest_arrowquant.report.gain_chart import optimization_gain

Plain = dict[str, Any]

NAMES = (
    "accuracy_by_bit_width",
    "target_achievement",
    "accuracy_compression_tradeoff",
    "layers",
)
GAIN = "optimization_gain"
TARGETS = {2: 0.70, 4: 0.90, 8: 0.95}
SQNR_DB = {2: 7.5, 3: 14.0, 4: 20.0, 8: 44.5}
LAYERS = ("blocks.0.attn.qkv.weight", "blocks.3.mlp.fc1.weight", "final.proj.weight")
UNMEASURED = {
    "layers": {
        "count": 1,
        "cosine_min": None,
        "cosine_max": None,
        "cosine_mean": None,
        "cosine_std": None,
        "worst": [],
    },
    "metrics": {
        "cosine": None,
        "sqnr_db": None,
        "bits_per_weight": None,
        "compression_ratio": None,
    },
}


def cosine_of(sqnr_db: float) -> float:
    return (1 - 10 ** (-sqnr_db / 10)) ** 0.5


def bound(metric: str, op: str, limit: float, value: float | None, tensor: str) -> Plain:
    if value is None:
        return {"metric": metric, "op": op, "bound": limit, "value": None, "margin": None,
                "tensor": tensor, "passed": True}  # fmt: skip
    margin = limit - value if op == "<=" else value - limit
    margin = limit - abs(value - 1) if op == "within" else margin
    return {"metric": metric, "op": op, "bound": limit, "value": value, "margin": margin,
            "tensor": tensor, "passed": margin >= 0}  # fmt: skip


def targets_of(cosine: float, bits: int | None, draw: random.Random, tensor: str) -> list[Plain]:
    width = bits or 4
    noise = 1.5 * (1 - cosine**2) + 0.001
    return [
        bound("cosine", ">=", TARGETS.get(width, 0.85), cosine, tensor),
        bound("complete", "<=", 0, 0, tensor),
        bound("row_sqnr_db", ">", 0.0, 3.0 * width - 3 + draw.random(), tensor),
        bound("gain", "within", noise, 1 + noise * draw.uniform(-0.4, 0.5), tensor),
        bound("bias", "<=", 0.5, draw.uniform(0.01, 0.2), tensor),
        bound("levels", "<=", 2**width, 2**width, tensor),
        *([bound("dead_columns", "<=", 0, 0, tensor)] if width > 2 else []),
        *([bound("order", "<=", 0.25, draw.uniform(0, 0.1), tensor)] if width > 2 else []),
        bound("floor", ">=", -3.0, draw.uniform(-1, 2), tensor),
        *([bound("ceiling", "<=", 6.02 * (width + 2), 6 * width, tensor)] if width <= 4 else []),
    ]


def record_of(
    name: str, subject: Plain, bits: int | None, quantizer: str | None, sqnr_db: float,
    count: int, tensors: tuple[str, ...],
) -> Plain:  # fmt: skip
    draw = random.Random(name)
    cosine = cosine_of(sqnr_db)
    worst = [cosine_of(sqnr_db - 3 + place) for place in range(len(tensors))]
    ends = (worst[0], cosine_of(sqnr_db + 2)) if count > 1 else (cosine, cosine)
    rate = (bits or 4) + (0.25 if quantizer == "rtn" else 0.5)
    targets = targets_of(ends[0], bits, draw, tensors[0])
    return {
        "nodeid": f"suite/test_accuracy.py::test_model[{name}]",
        "attempt": 0,
        "index": 0,
        "name": name,
        "subject": {"family": None, "source": None, "modality": None, "tensors": count,
                    "parameters": 1 << 20, "dtype": "float32", **subject},
        "quantizer": {"name": quantizer, "options": {}},
        "scheme": {} if bits is None else
                  {"bits": bits, "group_size": 64, "symmetric": True, "zero": "none"},
        "optimizations": [],
        "metrics": {"cosine": cosine, "sqnr_db": sqnr_db, "bits_per_weight": rate,
                    "compression_ratio": 32 / rate, "shannon_gap_db": 6.0206 * rate - sqnr_db},
        "improvement": None,
        "layers": {"count": count, "cosine_min": ends[0], "cosine_max": ends[1],
                   "cosine_mean": cosine, "cosine_std": 0.01,
                   "worst": [{"name": tensor, "shape": [768, 768], "cosine": value,
                              "sqnr_db": sqnr_db}
                             for tensor, value in zip(tensors, worst, strict=True)][:count]},
        "targets": targets,
        "passed": all(target["passed"] for target in targets),
        "notes": [],
        "timing": None,
    }  # fmt: skip


def suite_records() -> list[Plain]:
    """What the built-in suite gives: 4 modalities, 3 widths, 2 quantizers."""
    harder = {"text": 0.0, "code": 0.4, "image": -0.8, "audio": -1.5}
    return [
        record_of(
            f"{modality}-int{bits}-{quantizer}",
            {"kind": "synthetic", "modality": modality, "family": "made-up"},
            bits,
            quantizer,
            SQNR_DB[bits] + harder[modality] + (1.2 if quantizer == "mse" else 0),
            24,
            LAYERS,
        )
        for modality in harder
        for bits in (2, 4, 8)
        for quantizer in ("mse", "rtn")
    ]


def checkpoint_records() -> list[Plain]:
    """25 tensors, 3 widths, 2 quantizers."""
    parts = ("attention.self.query", "attention.self.value", "attention.output.dense",
             "intermediate.dense", "output.dense")  # fmt: skip
    tensors = [f"encoder.layer.{layer}.{part}.weight" for layer in range(5) for part in parts]
    return [
        record_of(
            f"{tensor}-int{bits}-{quantizer}",
            {"kind": "checkpoint", "source": "model.safetensors"},
            bits,
            quantizer,
            SQNR_DB[bits] + random.Random(tensor).gauss(0, 1.2) + (quantizer == "mse"),
            1,
            (tensor,),
        )
        for tensor in tensors
        for bits in (2, 4, 8)
        for quantizer in ("mse", "rtn")
    ]


def user_records() -> list[Plain]:
    """What a project's own tests give: names of any kind, widths and sizes often unknown."""
    names = (
        "test_roundtrip",
        "test_pack[3]",
        "_private",
        "cost $a$ or $b",
        "日本-int4",
        "two\nlines",
    )
    widths = (4, 3, None, 8, 2, 4)
    records = [
        record_of(name, {"kind": "array"}, bits, None, SQNR_DB[bits or 4], 1, (name,))
        for name, bits in zip(names, widths, strict=True)
    ]
    records[2]["metrics"] |= {"bits_per_weight": None, "compression_ratio": None}
    lossless(records[3])
    return records


def lossless(record: Plain) -> None:
    record["metrics"] |= {"cosine": 1.0, "sqnr_db": None}
    record["layers"] |= {"cosine_min": 1.0, "cosine_max": 1.0, "cosine_mean": 1.0}
    record["targets"][0] |= {"value": 1.0, "margin": 0.05}
    record["targets"][2] |= {"value": None, "margin": None}


def fail(record: Plain, sqnr_db: float = 2.0) -> Plain:
    """The record of a quantizer with a fault: cosine and gain miss their bounds."""
    cosine = cosine_of(sqnr_db)
    record["metrics"] |= {"cosine": cosine, "sqnr_db": sqnr_db}
    layers = record["layers"]
    lowest = cosine - 0.2 if layers["count"] > 1 else cosine
    layers |= {"cosine_min": lowest, "cosine_mean": cosine}
    layers["worst"][0]["cosine"] = lowest
    if layers["count"] == 1:
        layers["cosine_max"] = cosine
    limit, tensor = record["targets"][0]["bound"], record["targets"][0]["tensor"]
    record["targets"][0] = bound("cosine", ">=", limit, lowest, tensor)
    record["targets"][3] = bound("gain", "within", 0.05, 2.0, tensor)
    record["passed"] = False
    return record


def unmeasured(record: Plain) -> Plain:
    """The record of a result that was not whole."""
    tensor = record["targets"][0]["tensor"]
    return {**record, **UNMEASURED, "targets": [bound("complete", "<=", 0, 1, tensor)],
            "passed": False, "notes": [f"{tensor}: shape (3, 4), not (4, 4)"]}  # fmt: skip


def flawed_records() -> list[Plain]:
    """The suite with a record that fails and two that could not be measured."""
    records = suite_records()
    records[3] = fail(records[3])
    records[10], records[17] = unmeasured(records[10]), unmeasured(records[17])
    return records


def broken_checkpoint() -> list[Plain]:
    """150 records, of which one fails and one could not be measured."""
    records = checkpoint_records()
    records[70], records[30] = fail(records[70]), unmeasured(records[30])
    return records


RECIPES = {  # its quantizer, what it adds, dB gained at 8-bit and at 4-bit activations
    "baseline": ("rtn", [], 0.0, 0.0),
    "time_aware": ("rtn", ["time_aware"], 0.4, 3.0),
    "spatial": ("rtn", ["spatial"], 1.2, 2.5),
    "all": ("rtn", ["spatial", "time_aware"], 1.5, 5.0),
    "recommended": ("gptq", ["spatial", "time_aware"], 4.5, 6.5),
    "q_dit": ("gptq", [], 3.5, 7.0),
}
FAMILIES = {"mdlm": "text", "sedd": "text", "code": "code", "dit": "image", "vae": "image",
            "wavegrad": "audio"}  # fmt: skip
PAIRS = ((2, 8), (4, 8), (8, 8), (4, 4))


def comparison_record(family: str, recipe: str, widths: tuple[int, int], gain: float) -> Plain:
    """A record of the comparison: SQNR falls with the narrower of its two widths."""
    quantizer, optimizations, *_ = RECIPES[recipe]
    pair = f"w{widths[0]}a{widths[1]}"
    output_sqnr_db = {"w2a8": 6.0, "w4a8": 17.0, "w8a8": 27.0, "w4a4": 9.0}[pair] + gain
    subject = {"kind": "synthetic", "modality": FAMILIES[family], "family": family}
    record = record_of(f"{family}-{pair}-{recipe}", subject, widths[0], quantizer,
                       SQNR_DB[widths[0]], 24, LAYERS)  # fmt: skip
    baseline = recipe == "baseline"
    return {
        **record,
        "nodeid": f"suite/test_optimization.py::test_recipes[{family}]",
        "recipe": recipe,
        "activations": {"bits": widths[1], "range": "static", "groups": 1},
        "asserted": recipe in ("baseline", "recommended"),
        "optimizations": optimizations,
        "metrics": record["metrics"] | {
            "output_sqnr_db": output_sqnr_db,
            "output_cosine": cosine_of(output_sqnr_db),
            "bits_per_weight": widths[0] + (0.5 if recipe == "q_dit" else 0.25),
        },
        "improvement": None if baseline else {
            "over": f"{family}-{pair}-baseline", "sqnr_db": gain,
            "cosine": cosine_of(output_sqnr_db) - cosine_of(output_sqnr_db - gain),
        },
    }  # fmt: skip


def comparison_records(
    families: Iterable[str] = FAMILIES, pairs: tuple[tuple[int, int], ...] = PAIRS
) -> list[Plain]:
    """A record a family, pair of widths and recipe; most recipes gain something, some lose."""
    draw = random.Random("comparison")
    records = []
    for family, widths, recipe in product(families, pairs, RECIPES):
        expected = RECIPES[recipe][3 if widths[1] == 4 else 2]
        gain = 0.0 if recipe == "baseline" else expected + draw.gauss(0, 0.8)
        records.append(comparison_record(family, recipe, widths, gain))
    return records


def flawed_comparison() -> list[Plain]:
    """Five families; two records miss a bound, one is missing, one is exact."""
    records = comparison_records(list(FAMILIES)[1:])
    named = {record["name"]: record for record in records}
    named["sedd-w2a8-recommended"]["passed"] = False
    named["code-w4a4-time_aware"]["passed"] = False
    exact = named["vae-w8a8-all"]
    exact["metrics"] |= {"output_sqnr_db": None, "output_cosine": 1.0}
    exact["improvement"]["sqnr_db"] = None
    records.remove(named["dit-w4a8-spatial"])
    return records


COMPARISONS = {
    "six families": comparison_records,
    "flawed": flawed_comparison,
    "one family": lambda: comparison_records(["dit"]),
    "one width": lambda: comparison_records(["code", "mdlm"], ((4, 8),)),
    "no comparator": lambda: [r for r in comparison_records() if r["recipe"] != "q_dit"],
    "loss alone": lambda: [comparison_record("vae", recipe, (2, 8), gain)
                           for recipe, gain in (("baseline", 0.0), ("spatial", -31.25))],
    "beside the suite": lambda: [*flawed_records(), *comparison_records(["vae"])],
}  # fmt: skip
CASES = {
    "suite": flawed_records,
    "checkpoint": broken_checkpoint,
    "user": user_records,
    "mixed": lambda: [*flawed_records(), *user_records(), *checkpoint_records()[:12]],
    "nothing measured": lambda: [unmeasured(record) for record in user_records()[:3]],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The charts of every case, each in a folder of its own."""
    found = {}
    for case, records in CASES.items():
        found[case] = tmp_path_factory.mktemp("charts")
        write_charts(records(), found[case])
    return found


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The charts of every comparison, each in a folder of its own."""
    found = {}
    for case, records in COMPARISONS.items():
        found[case] = tmp_path_factory.mktemp("charts")
        write_charts(records(), found[case])
    return found


def words(folder: Path, name: str) -> list[str]:
    """The texts in a chart, one a line."""
    root = ElementTree.parse(folder / f"{name}.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = root.iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()).strip() for text in texts]


def test_no_records_no_charts(tmp_path: Path) -> None:
    assert write_charts([], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_same_records_same_bytes(folders: dict[str, Path], tmp_path: Path) -> None:
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": None, "axes.grid": True}):
        paths = write_charts(flawed_records(), tmp_path)
    assert sorted(path.name for path in paths) == sorted(
        f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")
    )
    for path in paths:
        assert path.read_bytes() == (folders["suite"] / path.name).read_bytes(), path.name


def test_the_settings_of_matplotlib_stay(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    write_charts(user_records()[:1], tmp_path)
    assert dict(matplotlib.rcParams) == before


def names_of(case: str) -> list[str]:
    """The charts of a case: without an SQNR none against compression."""
    unmeasured = case == "nothing measured"
    return [name for name in NAMES if not (unmeasured and name == "accuracy_compression_tradeoff")]


@pytest.mark.parametrize(("case", "name"), [(c, name) for c in CASES for name in names_of(c)])
def test_every_chart_is_a_picture(folders: dict[str, Path], case: str, name: str) -> None:
    check_picture(folders[case], name)


@pytest.mark.parametrize("case", COMPARISONS)
def test_the_chart_of_a_comparison_is_a_picture(comparisons: dict[str, Path], case: str) -> None:
    check_picture(comparisons[case], GAIN)


def check_picture(folder: Path, name: str) -> None:
    png = image.imread(folder / f"{name}.png")
    assert png.shape[0] > 300
    assert png.shape[1] > 1000
    assert png.min() < 0.3  # text
    edges = [png[:8], png[-8:], png[:, :8], png[:, -8:]]
    assert all((edge == 1).all() for edge in edges), "something reaches the edge: is it cut off?"
    assert words(folder, name)
    assert b"Software" not in (folder / f"{name}.png").read_bytes()
    assert "<dc:date>" not in (folder / f"{name}.svg").read_text(encoding="utf-8")


def test_accuracy_by_bit_width(folders: dict[str, Path]) -> None:
    found = words(folders["suite"], "accuracy_by_bit_width")
    assert [text for text in found if text.endswith(" bits")] == ["2 bits", "4 bits", "8 bits"]
    assert {"target 0.7", "target 0.9", "target 0.95"} <= {*found}
    assert {"text · mse", "audio · rtn", "0.99", "0.9999"} <= {*found}
    assert "0.907" in found  # the cosines of 2 and of 8 bits, both to be told from their neighbours
    assert "0.999982" in found
    assert "0.607  ✗ cosine, gain" in found
    assert found.count("no metrics  ✗ complete") == 2
    assert "2 records without metrics." in found


def test_many_subjects_share_rows(tmp_path: Path) -> None:
    records = [
        record_of(f"test_{place}", {"kind": "array"}, 4, None, 18 + place / 10, 1, ("w",))
        for place in range(41)
    ]
    write_charts(records, tmp_path)
    found = words(tmp_path, "accuracy_by_bit_width")
    assert "lowest of 41: 0.9920" in found
    assert "35 others" in found
    assert "Shown: the worst 40 of 41 rows, failed ones first." in words(tmp_path, "layers")


def test_target_achievement(folders: dict[str, Path]) -> None:
    found = words(folders["suite"], "target_achievement")
    assert "Targets and guards: 3 of 24 records failed" in found
    assert {"text · 4 bits · rtn", "2 missed", "✗ -0.95"} <= {*found}
    assert found.count("1 missed") == 2
    assert sum(text.startswith("✗ -") for text in found) == 4
    passed = sum(target["passed"] for record in flawed_records() for target in record["targets"])
    assert sum(text.startswith(("✓ +", "✓ 0")) for text in found) == passed


def test_target_achievement_of_a_checkpoint(folders: dict[str, Path]) -> None:
    found = words(folders["checkpoint"], "target_achievement")
    assert "Targets and guards: 2 of 150 records failed" in found
    assert "Shown: the worst 40 of 150 records, failed ones first." in found
    labels = [text for text in found if text.startswith("encoder.")]
    assert len(labels) == 40
    assert "1 record without metrics." in found
    failed = {"encoder.layer.1.attention.self.query.weight · 2 bits · mse",
              "encoder.layer.2.attention.self.value.weight · 8 bits · mse"}  # fmt: skip
    assert {*labels[:2]} == failed


def test_accuracy_compression_tradeoff(folders: dict[str, Path]) -> None:
    found = words(folders["suite"], "accuracy_compression_tradeoff")
    assert any("6.02 dB per bit" in text for text in found)
    assert {"SQNR, dB", "distance to the bound, dB", "failed"} <= {*found}
    assert {"text", "code", "image", "audio", "rtn", "mse"} <= {*found}
    assert "2 records without both a finite SQNR and a stored size: not drawn." in found


def test_layers_of_models(folders: dict[str, Path]) -> None:
    found = words(folders["suite"], "layers")
    assert "✗ 0.407  blocks.0.attn.qkv.weight" in found
    assert found.count("0.803  blocks.0.attn.qkv.weight") == 1
    assert found.count("no metrics  ✗ complete") == 2


def test_layers_of_a_checkpoint_are_a_row_a_tensor_worst_first(folders: dict[str, Path]) -> None:
    found = words(folders["checkpoint"], "layers")
    tensors = [text for text in found if text.startswith("encoder.")]
    assert len(tensors) == len({*tensors}) == 25
    lowest = [text.split(": ")[1] for text in found if text.startswith("lowest of 6")]
    assert lowest[:2] == ["0.909  ✗ 1 failed", "0.607  ✗ 1 failed"]
    assert lowest[2:] == sorted(lowest[2:])


def test_names_of_any_kind(folders: dict[str, Path]) -> None:
    found = words(folders["user"], "accuracy_by_bit_width")
    assert {"cost $a$ or $b", r"\u65e5\u672c-int4", r"two\nlines", "_private"} <= {*found}
    assert {"3 bits", "width not given", "1"} <= {*found}


def test_the_gain_is_drawn_only_of_a_comparison(
    folders: dict[str, Path], comparisons: dict[str, Path], tmp_path: Path
) -> None:
    files = [f"{GAIN}.png", f"{GAIN}.svg"]
    for case, folder in folders.items():
        assert {path.stem for path in folder.iterdir()} == {*names_of(case)}
        assert not (folder / files[0]).exists()
    assert sorted(path.name for path in comparisons["flawed"].iterdir()) == files
    baselines = [r for r in comparison_records() if r["recipe"] == "baseline"]
    assert write_charts(baselines, tmp_path) == []


def test_the_other_charts_leave_a_comparison_out(
    folders: dict[str, Path], comparisons: dict[str, Path]
) -> None:
    """They are, byte for byte, those of the same records without it."""
    for name in (f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")):
        beside = (comparisons["beside the suite"] / name).read_bytes()
        assert beside == (folders["suite"] / name).read_bytes(), name


def test_a_chart_of_an_earlier_run_is_removed(tmp_path: Path) -> None:
    write_charts(comparison_records(["vae"], ((4, 8),)), tmp_path)
    (tmp_path / "mine.png").write_bytes(b"")
    paths = write_charts(user_records()[:1], tmp_path)
    assert {*tmp_path.iterdir()} == {*paths, tmp_path / "mine.png"}


def test_optimization_gain(comparisons: dict[str, Path]) -> None:
    found = words(comparisons["flawed"], GAIN)
    assert [text for text in found if text in FAMILIES] == list(FAMILIES)[1:]
    assert [text for text in found if text[0] == "W"] == ["W2A8", "W4A8", "W8A8", "W4A4"]
    rows = ["time_aware", "spatial", "all", "recommended", "q_dit", "(comparator)"]
    assert [text for text in found if text in rows] == 2 * rows  # in the left panels
    assert {"gain, dB", "no gain", "misses a bound", "1 record without a gain: not drawn."} <= {
        *found
    }
    gains = [r["improvement"]["sqnr_db"] for r in flawed_comparison() if r["improvement"]]
    losses = [f"{gain:.2f}" for gain in gains if gain is not None and round(gain, 2) <= 0]
    assert len(losses) > 2
    figures = [text for text in found if text.count(".") == 1 and text[0] == "-"]
    assert sorted(figures) == sorted(losses)
    assert [text for text in found if text.endswith("bits")] == 5 * ["+0.25 bits"]  # q_dit's


def markers(folder: Path) -> list[str]:
    """The dots of the chart of one family and pair of widths, from the top: how each is filled."""
    root = ElementTree.parse(folder / f"{GAIN}.svg").getroot()
    uses = root.iter("{http://www.w3.org/2000/svg}use")
    return [use.attrib["style"] for use in uses if "fill:" in use.attrib["style"]]


def test_what_gains_nothing_is_hollow_and_what_misses_a_bound_has_a_rim(tmp_path: Path) -> None:
    gains = {"time_aware": 1.0, "spatial": -0.5, "all": 0.001, "recommended": 2.0}
    records = [comparison_record("vae", recipe, (4, 8), gain) for recipe, gain in gains.items()]
    records[-1]["passed"] = False
    write_charts(records, tmp_path)
    dots = markers(tmp_path)[:4]
    assert ["fill: #ffffff" in dot for dot in dots] == [False, True, True, False]
    assert ["#d55e00" in dot for dot in dots] == [False, False, False, True]
    assert {"-0.50", "+0.00"} <= {*words(tmp_path, GAIN)}


@pytest.mark.parametrize("case", ["flawed", "loss alone"])
def test_the_figures_of_losses_stay_in_their_panel(case: str) -> None:
    with matplotlib.style.context(["default", STYLE]):
        figure = optimization_gain([entry_of(r) for r in COMPARISONS[case]() if r["recipe"]])
        figure.canvas.draw()
    losses = [(axes, text) for axes in figure.axes for text in axes.texts if "-" in text.get_text()]
    assert losses
    for axes, text in losses:
        assert text.get_window_extent().x0 > axes.get_window_extent().x0


def test_of_several_attempts_the_last_is_drawn(tmp_path: Path) -> None:
    records = [comparison_record("vae", "spatial", (4, 8), gain) for gain in (-1.0, -2.0)]
    records[1]["attempt"] = 1
    write_charts(records, tmp_path)
    assert [text for text in words(tmp_path, GAIN) if text[0] == "-"] == ["-2.00"]

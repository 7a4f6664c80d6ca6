"""The comparison of recipes: its records against plain numpy, and what it asserts."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import log10

import numpy as np
import pytest

from pytest_arrowquant import calibration, comparison, cores, recipes
from pytest_arrowquant.accuracy import Accuracy
from pytest_arrowquant.arrays import Array
from pytest_arrowquant.calibration import Calibration
from pytest_arrowquant.errors import AccuracyFailure, TargetError, TensorError
from pytest_arrowquant.metrics import measure
from pytest_arrowquant.quantizers import COMPACT, Gptq, R2q, Rtn
from pytest_arrowquant.recipes import TIME_GROUPS, WIDTH_PAIRS, recipes_for
from pytest_arrowquant.records import AccuracyRecord
from pytest_arrowquant.subject import Subject

STEPS, CHANNELS = 10, 96
NAMES = ("baseline", "time_aware", "spatial", "all", "recommended", "q_dit")


def tokens(count: int, seed: int) -> Calibration:
    """Inputs whose range grows fourfold over the timesteps, with two larger channels."""
    generator = np.random.default_rng(seed)
    at = np.arange(count) * STEPS // count
    x = generator.standard_normal((count, CHANNELS)) * 4 ** (at / (STEPS - 1))[:, None]
    x[:, [5, 60]] *= 6
    return Calibration.of(x.astype(np.float32), at)


@dataclass
class Fed:
    name: str
    weight: Array
    takes_inputs = True
    producer: str | None = None
    calibration: Calibration = field(default_factory=lambda: tokens(400, 1))
    held_out: Calibration = field(default_factory=lambda: tokens(100, 2))


@dataclass
class Table:
    name: str
    weight: Array
    takes_inputs = False


@dataclass
class Model:
    layers: list[Fed | Table]
    subject = Subject("synthetic", "image", "tiny")

    def __iter__(self) -> Iterator[Fed | Table]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


def weight(rows: int, seed: int, channels: int = CHANNELS) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, channels)).astype(np.float32)


@pytest.fixture
def model() -> Model:
    return Model(
        [Table("embedding", weight(9, 0)), Fed("a", weight(40, 1)), Fed("b", weight(64, 2))]
    )


def records_of(model: Model, *widths: int) -> dict[str, AccuracyRecord]:
    records: list[AccuracyRecord] = []
    Accuracy(records).check_recipes(model, widths)
    return {record.name.removeprefix("tiny-"): record for record in records}


def output_sqnr_db(layers: list[Fed], outputs) -> float:
    """Of layers that count alike: -10 log10 of the mean of their relative squared errors."""
    errors = []
    for layer in layers:
        expected = layer.held_out.inputs.astype(np.float64) @ layer.weight.T.astype(np.float64)
        difference = expected - outputs(layer)
        errors.append(np.square(difference).sum() / np.square(expected).sum())
    return -10 * log10(np.mean(errors))


def rounded(layer: Fed, bits: int, ranges: Array) -> Array:
    """The held-out inputs under a symmetric scale a timestep."""
    scale = (ranges / np.float32(2 ** (bits - 1) - 1))[layer.held_out.timesteps][:, None]
    most = 2 ** (bits - 1) - 1
    codes = np.clip(np.rint(layer.held_out.inputs * (np.float32(1) / scale)), -most, most)
    return codes.astype(np.float64) * scale


@pytest.mark.parametrize(("bits", "activation_bits"), WIDTH_PAIRS)
def test_the_baseline_is_rounding_to_nearest_in_static_ranges(model, bits, activation_bits):
    record = records_of(model, bits)[f"w{bits}a{activation_bits}-baseline"]

    def outputs(layer: Fed) -> Array:
        peak = np.abs(layer.calibration.inputs).max()
        x = rounded(layer, activation_bits, np.full(STEPS, peak))
        return x @ Rtn().quantize(layer.weight, bits).dequantize().astype(np.float64).T

    expected = output_sqnr_db(model.layers[1:], outputs)
    assert record.metrics["output_sqnr_db"] == pytest.approx(expected, abs=1e-4)
    assert record.improvement is None
    assert record.activations == {
        "bits": activation_bits,
        "range": "static",
        "groups": 1,
        "smoothing": None,
    }


def test_time_aware_ranges_are_those_of_the_best_groups(model: Model):
    record = records_of(model, 8)["w8a8-time_aware"]

    def outputs(layer: Fed) -> Array:
        peaks = layer.calibration.channel_peaks.max(axis=1)
        cuts = [
            (0, i, j, k, STEPS)
            for i in range(1, STEPS)
            for j in range(i + 1, STEPS)
            for k in range(j + 1, STEPS)
        ]
        best = min(
            cuts,
            key=lambda c: sum((b - a) * peaks[a:b].max() ** 2 for a, b in itertools.pairwise(c)),
        )
        ranges = np.concatenate(
            [np.full(b - a, peaks[a:b].max()) for a, b in itertools.pairwise(best)]
        )
        x = rounded(layer, 8, ranges)
        return x @ Rtn().quantize(layer.weight, 8).dequantize().astype(np.float64).T

    expected = output_sqnr_db(model.layers[1:], outputs)
    assert record.metrics["output_sqnr_db"] == pytest.approx(expected, abs=1e-4)
    assert record.optimizations == ["time_aware"]
    assert record.activations == {
        "bits": 8,
        "range": "time_aware",
        "groups": TIME_GROUPS,
        "smoothing": None,
    }
    assert record.improvement["sqnr_db"] > 1


def test_every_recipe_has_a_record_at_every_pair(model: Model):
    found = records_of(model, 2, 4, 8)
    assert list(found) == [f"w{w}a{a}-{name}" for w, a in WIDTH_PAIRS for name in NAMES]
    assert [name for name, record in found.items() if record.asserted] == [
        f"w{w}a8-{name}" for w in (2, 4, 8) for name in ("all", "recommended")
    ]
    assert list(records_of(model, 8)) == [f"w8a8-{name}" for name in NAMES]


def test_the_gain_is_the_difference_to_the_baseline_of_its_widths(model: Model):
    found = records_of(model, 4)
    for pair in ("w4a8", "w4a4"):
        baseline = found[f"{pair}-baseline"]
        for name in NAMES[1:]:
            record = found[f"{pair}-{name}"]
            assert record.improvement == {
                "over": baseline.to_json()["name"],
                "cosine": record.metrics["output_cosine"] - baseline.metrics["output_cosine"],
                "sqnr_db": record.metrics["output_sqnr_db"] - baseline.metrics["output_sqnr_db"],
            }
    assert found["w4a8-spatial"].improvement["sqnr_db"] > 1  # two channels are larger


def test_smoothing_that_does_not_help_is_left_out(model: Model):
    """Without outliers the search returns about the identity: never a loss worth a mention."""
    generator = np.random.default_rng(5)
    for layer in model.layers[1:]:
        for name, count in (("calibration", 400), ("held_out", 100)):
            x = generator.standard_normal((count, CHANNELS)).astype(np.float32)
            setattr(layer, name, Calibration.of(x, np.arange(count) * STEPS // count))
    assert records_of(model, 8)["w8a8-spatial"].improvement["sqnr_db"] > -0.1


def test_gptq_is_given_the_smoothed_layer(model: Model):
    found = records_of(Model(model.layers[1:2]), 4)["w4a8-recommended"]
    assert found.quantizer["name"] == "gptq"
    assert found.optimizations == ["spatial"]
    layer = model.layers[1]
    plain = Gptq().quantize(layer.weight, 4, layer.calibration)
    unsmoothed = measure(layer.weight, plain).sqnr_db
    assert found.metrics["sqnr_db"] != pytest.approx(unsmoothed, abs=1e-3)


def test_a_layer_is_factored_once(model: Model, monkeypatch: pytest.MonkeyPatch):
    calls = []
    factorize = calibration.factorize

    def counted(*arguments):
        calls.append(arguments)
        return factorize(*arguments)

    monkeypatch.setattr(calibration, "factorize", counted)
    records_of(model, 2, 4, 8)
    assert len(calls) == 2


def test_tables_are_left_out_and_named(model: Model):
    for record in records_of(model, 8).values():
        assert record.subject["tensors"] == 2
        assert "embedding is a look-up table: left out" in record.notes


def test_tokens_take_r2q_where_it_has_the_width():
    for modality in ("text", "code"):
        assert recipes_for(modality, 2)[4].quantizer == R2q()
        assert recipes_for(modality, 4)[4].quantizer == COMPACT[4]
    for modality in ("image", "audio"):
        assert recipes_for(modality, 2)[4].quantizer == Gptq(COMPACT[2])


def test_what_is_ours_fails_the_test_and_a_comparator_does_not(
    model: Model, monkeypatch: pytest.MonkeyPatch
):
    class Broken(Rtn):
        def quantize(self, weight, bits, calibration=None):
            q = super().quantize(weight, bits)
            return replace(q, codes=q.codes[::-1].copy())

    def all_but(*names: str):
        def broken(modality: str, bits: int):
            return tuple(
                replace(recipe, quantizer=recipe.quantizer if recipe.name in names else Broken())
                for recipe in recipes_for(modality, bits)
            )

        return broken

    monkeypatch.setattr(comparison, "recipes_for", all_but("all", "recommended", "q_dit"))
    found = records_of(model, 4)
    assert not found["w4a8-time_aware"].passed
    monkeypatch.setattr(comparison, "recipes_for", all_but("recommended", "q_dit"))
    with pytest.raises(AccuracyFailure, match=r"^tiny-w4a8-all\nint4: 'b' \(64, 96\) float32 miss"):
        records_of(model, 4)


def test_a_layer_takes_over_the_scale_of_its_producer(monkeypatch: pytest.MonkeyPatch):
    """Rows of very different sizes before it: equalization is tried, and told what they are."""
    first = Fed("first", weight(CHANNELS, 3) * np.geomspace(1, 100, CHANNELS)[:, None])
    first.weight = first.weight.astype(np.float32)
    second = Fed("second", weight(8, 4), producer="first")
    given = {}
    of = comparison.SmoothingSearch.of

    def watched(weight, calibration, producer):
        given[weight.shape] = producer
        return of(weight, calibration, producer)

    monkeypatch.setattr(comparison.SmoothingSearch, "of", watched)
    records_of(Model([first, second]), 8)
    assert given[first.weight.shape] is None
    ranges = np.abs(first.weight).max(axis=1)
    np.testing.assert_array_equal(given[second.weight.shape], ranges)


def test_the_records_do_not_depend_on_the_cores(model: Model, monkeypatch: pytest.MonkeyPatch):
    found = []
    for count in (1, 3):
        monkeypatch.setattr(cores, "cores", lambda count=count: count)
        found.append([record.to_json() for record in records_of(model, 4).values()])
    assert found[0] == found[1]


def test_what_was_searched_is_recorded(model: Model):
    found = records_of(model, 4)
    sizes = found["w4a8-q_dit"].quantizer["options"]["grid"]["group_size"]
    assert set(sizes) == {"a", "b"}
    assert set(sizes.values()) <= {32, 64, 128, 256, 512}
    smoothing = found["w4a8-spatial"].activations["smoothing"]
    assert set(smoothing) == {"a", "b"}
    assert all(rule.startswith("alpha=") for rule in smoothing.values())
    note = (
        "judged by outputs: output_cosine, gain are of inputs @ weights.T; "
        "bias the worse of there and in the weights"
    )
    assert note in found["w4a8-all"].notes


def test_misuse_is_refused(model: Model):
    accuracy = Accuracy([])
    with pytest.raises(TargetError, match=r"widths=\(\) has none of 2, 4, 8"):
        accuracy.check_recipes(model, ())
    with pytest.raises(TargetError, match="most_outputs=0 is not a number of at least 1"):
        accuracy.check_recipes(model, (4,), 0)
    model.subject = Subject()
    with pytest.raises(TargetError, match="modality is None; recipes are for text, code, image"):
        accuracy.check_recipes(model, (4,))


def test_errors_name_the_layer(model: Model):
    accuracy = Accuracy([])
    first = model.layers[1]
    first.calibration = Calibration.of(first.calibration.inputs[::8])
    with pytest.raises(
        TensorError, match="50 calibration tokens for 96 input channels of tensor 'a'"
    ):
        accuracy.check_recipes(model, (4,))
    first.weight[2, 3] = np.nan
    with pytest.raises(TensorError, match=r"tensor 'a' has nan at index \(2, 3\)"):
        accuracy.check_recipes(model, (4,))
    first.weight = weight(4, 0, 60)
    with pytest.raises(TensorError, match=r"96 channels; tensor 'a' of shape \(4, 60\) takes 60"):
        accuracy.check_recipes(model, (4,))


def test_recipes_are_one_closed_table():
    assert set(recipes.RECOMMENDED) == {"text", "code", "image", "audio"}
    for modality in recipes.RECOMMENDED:
        for bits in (2, 4, 8):
            assert tuple(recipe.name for recipe in recipes_for(modality, bits)) == NAMES
